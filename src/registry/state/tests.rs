//! Of what the registry holds, and what it does not do.

use super::*;

const SUBJECT: &str = "orders-value";

fn avro(text: &str) -> Schema {
    Schema::read(Kind::Avro, text).unwrap()
}

fn record(fields: &[&str]) -> Schema {
    let field = |name: &&str| format!(r#"{{"name":"{name}","type":"long","default":0}}"#);
    let fields: Vec<_> = fields.iter().map(field).collect();
    let fields = fields.join(",");
    avro(&format!(
        r#"{{"type":"record","name":"Order","fields":[{fields}]}}"#
    ))
}

#[track_caller]
fn registered(state: &mut State, subject: &str, schema: &Schema) -> (u32, u32) {
    match state.register(subject, schema).unwrap() {
        Registering::There(id) => (0, id),
        Registering::New { value, .. } => {
            let new = (value.version, value.id);
            state.apply(Record::Version(value)).unwrap();
            new
        }
    }
}

fn apply_all(state: &mut State, records: Vec<Record>) {
    for record in records {
        state.apply(record).unwrap();
    }
}

#[test]
fn the_same_schema_has_the_same_id_everywhere() {
    let mut state = State::default();
    let (one, two) = (record(&["a"]), record(&["a", "b"]));
    assert_eq!(registered(&mut state, SUBJECT, &one), (1, 100));
    assert_eq!(registered(&mut state, SUBJECT, &two), (2, 101));
    assert_eq!(registered(&mut state, SUBJECT, &one), (0, 100));
    assert_eq!(registered(&mut state, "other", &two), (1, 101));
    assert_eq!(
        state.uses(101, false).unwrap(),
        [(SUBJECT.to_owned(), 2), ("other".to_owned(), 1)]
    );
    assert_eq!(state.subjects("o", false), [SUBJECT, "other"]);
    assert_eq!(state.find(SUBJECT, &two, false).unwrap().version, 2);
    let none = state.find(SUBJECT, &record(&["c"]), false).unwrap_err();
    assert_eq!(none.code, 40_403);
    assert_eq!(state.schema(102).unwrap_err().code, 40_403);
}

#[test]
fn what_is_deleted_is_shown_to_who_asks_for_it_until_it_is_gone() {
    let mut state = State::default();
    let (one, two) = (record(&["a"]), record(&["a", "b"]));
    registered(&mut state, SUBJECT, &one);
    registered(&mut state, SUBJECT, &two);
    let code = |result: Result<(u32, Vec<Record>), Refused>| result.unwrap_err().code;
    assert_eq!(
        code(state.delete_version(SUBJECT, Which::Number(1), true)),
        40_407
    );
    let (number, records) = state.delete_version(SUBJECT, Which::Latest, false).unwrap();
    assert_eq!(number, 2);
    apply_all(&mut state, records);
    assert_eq!(state.versions(SUBJECT, false).unwrap(), [1]);
    assert_eq!(state.versions(SUBJECT, true).unwrap(), [1, 2]);
    assert_eq!(
        code(state.delete_version(SUBJECT, Which::Number(2), false)),
        40_406
    );
    // Values of it may still be read.
    assert_eq!(state.schema(101).unwrap().version, 2);
    assert_eq!(state.uses(101, false).unwrap(), []);
    // It comes back as a version of its own, by the same id.
    assert_eq!(registered(&mut state, SUBJECT, &two), (3, 101));
    let (_, records) = state
        .delete_version(SUBJECT, Which::Number(2), true)
        .unwrap();
    apply_all(&mut state, records);
    assert_eq!(state.versions(SUBJECT, true).unwrap(), [1, 3]);
    assert_eq!(
        code(state.delete_version(SUBJECT, Which::Number(2), true)),
        40_402
    );
    assert_eq!(
        code(state.delete_version("none", Which::Latest, true)),
        40_401
    );
}

#[test]
fn a_subject_is_deleted_with_its_level() {
    let mut state = State::default();
    registered(&mut state, SUBJECT, &record(&["a"]));
    registered(&mut state, SUBJECT, &record(&["b"]));
    let level = Some(Level::None);
    let subject = Some(SUBJECT.to_owned());
    state.apply(Record::Level { subject, level }).unwrap();
    let refused = state.delete_subject(SUBJECT, true).unwrap_err();
    assert_eq!(refused.code, 40_405);
    let (versions, records) = state.delete_subject(SUBJECT, false).unwrap();
    assert_eq!(versions, [1, 2]);
    apply_all(&mut state, records);
    assert_eq!(state.own_level(Some(SUBJECT)), None);
    assert_eq!(state.versions(SUBJECT, false).unwrap_err().code, 40_401);
    assert!(state.subjects("", false).is_empty());
    assert_eq!(state.subjects("", true), [SUBJECT]);
    assert_eq!(
        state.delete_subject(SUBJECT, false).unwrap_err().code,
        40_404
    );
    let (versions, records) = state.delete_subject(SUBJECT, true).unwrap();
    assert_eq!(versions, [1, 2]);
    apply_all(&mut state, records);
    assert_eq!(
        state.delete_subject(SUBJECT, true).unwrap_err().code,
        40_401
    );
    assert_eq!((state.bytes, state.known.len()), (0, 0));
}

#[test]
fn a_level_asks_about_the_last_version_or_about_all() {
    let mut state = State::default();
    for fields in [&["a"][..], &["b"], &["c"]] {
        registered(&mut state, SUBJECT, &record(fields));
    }
    let numbers = |level| {
        let against = state.against(SUBJECT, level).into_iter();
        against.map(|(number, _)| number).collect::<Vec<_>>()
    };
    assert!(numbers(Level::None).is_empty());
    for level in [Level::Backward, Level::Forward, Level::Full] {
        assert_eq!(numbers(level), [3]);
    }
    for level in [
        Level::BackwardTransitive,
        Level::ForwardTransitive,
        Level::FullTransitive,
    ] {
        assert_eq!(numbers(level), [3, 2, 1]);
    }
}

#[test]
fn each_level_lets_pass_what_it_should() {
    let (old, new) = (
        record(&["a"]),
        avro(
            r#"{"type":"record","name":"Order","fields":[{"name":"a","type":"long","default":0},{"name":"b","type":"long"}]}"#,
        ),
    );
    // A field without a default can be written to old readers, and not read from old writers.
    for (level, new_after_old, old_after_new) in [
        (Level::None, true, true),
        (Level::Backward, false, true),
        (Level::Forward, true, false),
        (Level::Full, false, false),
    ] {
        assert_eq!(
            new.objections(&old, level).is_empty(),
            new_after_old,
            "{level:?}"
        );
        assert_eq!(
            old.objections(&new, level).is_empty(),
            old_after_new,
            "{level:?}"
        );
    }
    let json = Schema::read(Kind::Json, "{}").unwrap();
    assert!(!json.objections(&old, Level::Backward).is_empty());
    assert!(json.objections(&old, Level::None).is_empty());
}

#[test]
fn more_than_the_bounds_is_refused() {
    let mut state = State::default();
    for n in 0..VERSIONS_MAX {
        registered(&mut state, SUBJECT, &record(&[&format!("f{n}")]));
    }
    let refused = state.register(SUBJECT, &record(&["more"])).unwrap_err();
    assert_eq!(refused.code, 42_209);
    let one = record(&["a"]);
    for n in 1..SUBJECTS_MAX {
        registered(&mut state, &format!("s{n}"), &one);
    }
    assert_eq!(state.register("more", &one).unwrap_err().code, 42_209);
    for bad in ["", "a\nb", ":.ctx:a", &"s".repeat(256)] {
        assert_eq!(state.register(bad, &one).unwrap_err().code, 42_208, "{bad}");
    }
}

#[test]
fn wardents_own_schemas_are_put_once_and_changed_by_nobody() {
    let mut state = State::default();
    let missing = state.missing_own();
    // Three topics, each with a level.
    assert_eq!(missing.len(), OWN.len() + 3);
    apply_all(&mut state, missing);
    assert_eq!(state.missing_own(), []);
    for own in OWN {
        let subject = format!("{}-value", own.topic);
        let shown = state
            .version(&subject, Which::Number(own.version), false)
            .unwrap();
        assert_eq!(shown.id, own.id);
        assert_eq!(state.level(&subject), Level::BackwardTransitive);
        // Whoever would register what is there is told its id.
        assert_eq!(
            registered(&mut state, &subject, &avro(own.text)),
            (0, own.id)
        );
        assert_eq!(
            state.register(&subject, &record(&["a"])).unwrap_err().code,
            42_205
        );
        assert_eq!(
            state.delete_subject(&subject, false).unwrap_err().code,
            42_205
        );
    }
    // The first of somebody else's.
    assert_eq!(registered(&mut state, SUBJECT, &record(&["a"])), (1, 100));
}

#[test]
fn an_id_of_wardents_own_is_given_to_nothing_else() {
    let mut state = State::default();
    let value = |id: u32, subject: &str, schema: &str| SchemaValue {
        subject: subject.to_owned(),
        version: 1,
        id,
        kind: Kind::Avro,
        schema: schema.to_owned(),
        deleted: false,
        more: Map::new(),
    };
    assert!(
        state
            .apply(Record::Version(value(1, "s", "\"long\"")))
            .is_err()
    );
    assert!(
        state
            .apply(Record::Version(value(1, "s", OWN[0].text)))
            .is_ok()
    );
    // What a later Wardent has put there.
    let later = value(77, "wardent.later-value", "\"long\"");
    assert!(state.apply(Record::Version(later)).is_ok());
    assert!(
        state
            .apply(Record::Version(value(100, "s2", "no schema")))
            .is_ok()
    );
    assert_eq!(registered(&mut state, SUBJECT, &record(&["a"])), (1, 101));
}

#[test]
fn a_registry_that_may_only_be_read_takes_nothing() {
    let mut state = State::default();
    let mode = Some("READONLY".to_owned());
    state
        .apply(Record::Mode {
            subject: None,
            mode,
        })
        .unwrap();
    assert_eq!(
        state.register(SUBJECT, &record(&["a"])).unwrap_err().code,
        42_205
    );
    let (subject, mode) = (Some(SUBJECT.to_owned()), Some("READWRITE".to_owned()));
    state.apply(Record::Mode { subject, mode }).unwrap();
    registered(&mut state, SUBJECT, &record(&["a"]));
}

#[test]
fn a_version_is_a_number_or_latest() {
    assert_eq!(Which::parse("latest"), Ok(Which::Latest));
    assert_eq!(Which::parse("-1"), Ok(Which::Latest));
    assert_eq!(
        Which::parse("2147483647"),
        Ok(Which::Number(i32::MAX.cast_unsigned()))
    );
    for bad in ["0", "-2", "2147483648", "", "a", "1.0"] {
        assert_eq!(Which::parse(bad).unwrap_err().code, 42_202, "{bad}");
    }
}

fn claimed(subject: &str, version: u32, id: u32, text: &str) -> Record {
    Record::Version(SchemaValue {
        subject: subject.to_owned(),
        version,
        id,
        kind: Kind::Json,
        schema: text.to_owned(),
        deleted: false,
        more: Map::new(),
    })
}

#[test]
fn numbers_end_where_those_of_clients_do() {
    let mut state = State::default();
    for (version, id) in [(NUMBER_MAX + 1, 200), (1, NUMBER_MAX + 1), (u32::MAX, 200)] {
        assert!(state.apply(claimed(SUBJECT, version, id, "{}")).is_err());
    }
    assert_eq!(state.last_id(), 0);
    let last = claimed(SUBJECT, NUMBER_MAX, NUMBER_MAX, r#"{"title":"a"}"#);
    state.apply(last).unwrap();
    let (schema, known) = (record(&["a"]), r#"{"title":"a"}"#);
    let code = |refused: Refused| refused.code;
    assert_eq!(
        state.register("b", &schema).map_err(code).unwrap_err(),
        42_209
    );
    let known = Schema::read(Kind::Json, known).unwrap();
    assert_eq!(registered(&mut state, "b", &known), (1, NUMBER_MAX));
    // Nor is there a version after the last.
    state.apply(claimed("c", NUMBER_MAX, 200, "{}")).unwrap();
    assert_eq!(
        state.register("c", &known).map_err(code).unwrap_err(),
        42_209
    );
}

#[test]
fn what_others_write_is_bounded_too() {
    let mut state = State::default();
    for number in 1..=SUBJECTS_MAX {
        let subject = format!("s{number}");
        state.apply(claimed(&subject, 1, 200, "{}")).unwrap();
    }
    assert!(state.apply(claimed("one-more", 1, 200, "{}")).is_err());
    // There is always room for Wardent's own.
    let own = state.missing_own();
    apply_all(&mut state, own);
    assert!(state.missing_own().is_empty());
    for version in 2..=100 {
        state.apply(claimed("s1", version, 200, "{}")).unwrap();
    }
    assert!(state.apply(claimed("s1", 101, 200, "{}")).is_err());
    // One that is there may be said again.
    state.apply(claimed("s1", 100, 200, "{}")).unwrap();
    let long = claimed(&"s".repeat(256), 1, 200, "{}");
    assert!(state.apply(long).is_err());
    // What has no room is not counted, and what goes makes room.
    let big = "x".repeat(BYTES_MAX - state.bytes);
    state.apply(claimed("s2", 2, 201, &big)).unwrap();
    assert!(state.apply(claimed("s2", 3, 202, "{}")).is_err());
    state.apply(claimed("s2", 2, 201, &big)).unwrap();
    state.remove("s2", 2);
    state.apply(claimed("s2", 3, 202, "{}")).unwrap();
}

#[test]
fn levels_are_bounded() {
    let mut state = State::default();
    let level = |number: usize| Record::Level {
        subject: Some(format!("s{number}")),
        level: Some(Level::None),
    };
    let own = state.missing_own();
    apply_all(&mut state, own);
    let own = state.levels.len();
    for number in own..SUBJECTS_MAX {
        state.may_set_level(Some(&format!("s{number}"))).unwrap();
        state.apply(level(number)).unwrap();
    }
    assert_eq!(state.may_set_level(Some("more")).unwrap_err().code, 42_209);
    state.may_set_level(Some(&format!("s{own}"))).unwrap();
    state.may_set_level(None).unwrap();
    let others = (SUBJECTS_MAX..2 * SUBJECTS_MAX).map(|number| state.apply(level(number)));
    let refused = others.filter(Result::is_err).count();
    assert!(refused > SUBJECTS_MAX - 10, "{refused}");
    let mode = Record::Mode {
        subject: None,
        mode: Some("x".repeat(65)),
    };
    assert!(state.apply(mode).is_err());
}
