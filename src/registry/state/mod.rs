//! What the registry holds: subjects, their versions, ids, levels. Pure: records go in, answers come out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    level::Level,
    record::{Record, SchemaValue},
    refused::Refused,
    schema::{Identity, Kind, Schema},
};
use crate::event::avro::{OWN, OWN_ID_MAX};

/// Subjects at most, deleted ones that can still be asked for among them.
pub const SUBJECTS_MAX: usize = 1_000;
/// Versions of one subject, likewise.
pub const VERSIONS_MAX: usize = 100;
/// Bytes of all versions together: their texts, and what else is kept of them.
pub const BYTES_MAX: usize = 32 << 20;
/// The highest id, and the highest number of a version: clients keep both as signed 32 bit.
const NUMBER_MAX: u32 = i32::MAX.cast_unsigned();
/// Levels of subjects, and modes: as many as subjects, and those of Wardent's own.
const SETTINGS_MAX: usize = SUBJECTS_MAX + OWN.len();
/// Bytes of the name of a mode.
const MODE_BYTES_MAX: usize = 64;
/// Bytes of a subject's name.
const SUBJECT_BYTES_MAX: usize = 255;
/// What the subjects of Wardent's own events begin with.
const RESERVED: &str = "wardent.";

/// The mode of a registry that may be written.
const READ_WRITE: &str = "READWRITE";

/// A version of a subject.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) id: u32,
    pub(super) schema: Arc<Schema>,
    pub(super) is_deleted: bool,
    /// What another registry says of it besides.
    pub(super) more: Map<String, Value>,
    /// What it counts towards [`BYTES_MAX`].
    bytes: usize,
}

/// A version, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The subject.
    pub subject: String,
    /// The version.
    pub version: u32,
    /// The id of its schema.
    pub id: u32,
    /// The schema.
    pub schema: Arc<Schema>,
    /// Schemas that it refers to, where another registry kept some.
    pub references: Option<Value>,
}

/// Which version is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// This one.
    Number(u32),
    /// The last one that is not deleted.
    Latest,
}

impl Which {
    /// Reads `1`, or `latest`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if matches!(text, "latest" | "-1") {
            return Ok(Self::Latest);
        }
        let number = text.parse().ok();
        let number = number.filter(|number| (1..=i32::MAX.cast_unsigned()).contains(number));
        number.map(Self::Number).ok_or_else(|| {
            let words = format!(
                "The specified version '{text}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
            );
            Refused::new(42_202, words)
        })
    }
}

/// What registering a schema comes to.
#[derive(Debug)]
pub(super) enum Registering {
    /// It is there already, under this id.
    There(u32),
    /// It would be this version, if it gets along with these.
    New {
        value: SchemaValue,
        against: Vec<(u32, Arc<Schema>)>,
        level: Level,
    },
}

/// A schema that versions share, however many there are.
#[derive(Debug)]
struct Known {
    id: u32,
    schema: Arc<Schema>,
    uses: usize,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    subjects: BTreeMap<String, BTreeMap<u32, Version>>,
    known: HashMap<Identity, Known>,
    levels: BTreeMap<Option<String>, Level>,
    modes: BTreeMap<Option<String>, String>,
    /// The highest id that was ever seen.
    last_id: u32,
    bytes: usize,
}

impl State {
    /// Takes a record in.
    ///
    /// # Errors
    /// When it claims an id that has another meaning here, or there is no room for it.
    pub(super) fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Version(value) => return self.put(value),
            Record::Gone { subject, version } => self.remove(&subject, version),
            Record::Level { subject, level } => match level {
                Some(level) => set(&mut self.levels, subject, level)?,
                None => drop(self.levels.remove(&subject)),
            },
            Record::Mode { subject, mode } => match mode {
                Some(mode) if mode.len() > MODE_BYTES_MAX => {
                    return Err(format!("a mode has no more than {MODE_BYTES_MAX} bytes"));
                }
                Some(mode) => set(&mut self.modes, subject, mode)?,
                None => drop(self.modes.remove(&subject)),
            },
            Record::Deleted { subject, up_to } => {
                let versions = self.subjects.get_mut(&subject).into_iter().flatten();
                for (_, version) in versions.filter(|(number, _)| **number <= up_to) {
                    version.is_deleted = true;
                }
            }
            Record::Nothing => {}
        }
        Ok(())
    }

    fn put(&mut self, value: SchemaValue) -> Result<(), String> {
        let bytes = value.schema.len() + bytes_of(&value.more);
        self.has_room(&value, bytes)?;
        let schema = Schema::kept(value.kind, value.schema);
        if (1..=OWN_ID_MAX).contains(&value.id) && !is_own(value.id, &value.subject, &schema) {
            return Err(format!(
                "the ids 1 to {OWN_ID_MAX} are those of Wardent's own schemas, and {} is given to another",
                value.id
            ));
        }
        let known = self
            .known
            .entry(*schema.identity())
            .or_insert_with(|| Known {
                id: value.id,
                schema: Arc::new(schema.clone()),
                uses: 0,
            });
        known.uses += 1;
        let schema = match *known.schema == schema {
            true => Arc::clone(&known.schema),
            false => Arc::new(schema),
        };
        self.last_id = self.last_id.max(value.id);
        self.bytes += bytes;
        let version = Version {
            id: value.id,
            schema,
            is_deleted: value.deleted,
            more: value.more,
            bytes,
        };
        let versions = self.subjects.entry(value.subject).or_default();
        if let Some(before) = versions.insert(value.version, version) {
            self.let_go(&before);
        }
        Ok(())
    }

    /// Whether what a record says of a version can be kept. Records of another registry, or of a client that
    /// writes to the topic itself, are bound by nothing else.
    fn has_room(&self, value: &SchemaValue, bytes: usize) -> Result<(), String> {
        if value.id.max(value.version) > NUMBER_MAX {
            return Err(format!("ids and versions end at {NUMBER_MAX}"));
        }
        if value.subject.len() > SUBJECT_BYTES_MAX {
            return Err(format!(
                "a subject has no more than {SUBJECT_BYTES_MAX} bytes"
            ));
        }
        let versions = self.subjects.get(&value.subject);
        let before = versions.and_then(|versions| versions.get(&value.version));
        let is_new = before.is_none();
        if versions.is_none() && self.subjects.len() >= SUBJECTS_MAX && !is_of_own(&value.subject) {
            return Err(format!("there are {SUBJECTS_MAX} subjects already"));
        }
        if is_new && versions.is_some_and(|versions| versions.len() >= VERSIONS_MAX) {
            return Err(format!("it has {VERSIONS_MAX} versions already"));
        }
        let rest = self.bytes - before.map_or(0, |before| before.bytes);
        if rest + bytes > BYTES_MAX {
            return Err(format!(
                "all together would have more than {BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    fn remove(&mut self, subject: &str, version: u32) {
        let Some(versions) = self.subjects.get_mut(subject) else {
            return;
        };
        let before = versions.remove(&version);
        if versions.is_empty() {
            self.subjects.remove(subject);
        }
        if let Some(before) = before {
            self.let_go(&before);
        }
    }

    fn let_go(&mut self, version: &Version) {
        self.bytes -= version.bytes;
        let identity = version.schema.identity();
        if let Some(known) = self.known.get_mut(identity) {
            known.uses -= 1;
            if known.uses == 0 {
                self.known.remove(identity);
            }
        }
    }

    /// All versions, of all subjects.
    fn all(&self) -> impl Iterator<Item = (&str, u32, &Version)> {
        self.subjects.iter().flat_map(|(subject, versions)| {
            let each = versions.iter();
            each.map(move |(number, version)| (subject.as_str(), *number, version))
        })
    }

    // What may be asked.

    pub(super) fn subjects(&self, prefix: &str, deleted: bool) -> Vec<String> {
        let all = self.subjects.iter();
        let wanted = all.filter(|(name, versions)| {
            let is_there = |version: &Version| deleted || !version.is_deleted;
            name.starts_with(prefix) && versions.values().any(is_there)
        });
        wanted.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<u32>, Refused> {
        let versions = self.subjects.get(subject).into_iter().flatten();
        let wanted = versions.filter(|(_, version)| deleted || !version.is_deleted);
        let numbers: Vec<_> = wanted.map(|(number, _)| *number).collect();
        match numbers.is_empty() {
            true => Err(Refused::no_subject(subject)),
            false => Ok(numbers),
        }
    }

    pub(super) fn version(
        &self,
        subject: &str,
        which: Which,
        deleted: bool,
    ) -> Result<Shown, Refused> {
        // Whether there is such a subject comes first.
        let versions = self.versions(subject, deleted)?;
        let (number, words) = match which {
            Which::Number(number) => (Some(number), number.to_string()),
            Which::Latest => (versions.last().copied(), "latest".to_owned()),
        };
        let number = number.filter(|number| versions.contains(number));
        let found = number.and_then(|number| self.shown(subject, number));
        found.ok_or_else(|| Refused::no_version(words))
    }

    fn shown(&self, subject: &str, number: u32) -> Option<Shown> {
        let version = self.subjects.get(subject)?.get(&number)?;
        Some(Shown {
            subject: subject.to_owned(),
            version: number,
            id: version.id,
            schema: Arc::clone(&version.schema),
            references: version.more.get("references").cloned(),
        })
    }

    /// The version of a subject that is this schema.
    pub(super) fn find(
        &self,
        subject: &str,
        schema: &Schema,
        deleted: bool,
    ) -> Result<Shown, Refused> {
        for number in self.versions(subject, deleted)?.into_iter().rev() {
            let shown = self.shown(subject, number);
            let is_it = |shown: &Shown| shown.schema.identity() == schema.identity();
            if let Some(found) = shown.filter(is_it) {
                return Ok(found);
            }
        }
        Err(Refused::no_schema())
    }

    /// Subjects and versions of this id.
    pub(super) fn uses(&self, id: u32, deleted: bool) -> Result<Vec<(String, u32)>, Refused> {
        let mut is_known = false;
        let mut uses = Vec::new();
        for (subject, number, version) in self.all().filter(|(_, _, version)| version.id == id) {
            is_known = true;
            if deleted || !version.is_deleted {
                uses.push((subject.to_owned(), number));
            }
        }
        is_known.then_some(uses).ok_or_else(Refused::no_schema)
    }

    /// The schema of this id, deleted or not: there may be values of it.
    pub(super) fn schema(&self, id: u32) -> Result<Shown, Refused> {
        let found = self.all().find(|(_, _, version)| version.id == id);
        let shown = found.and_then(|(subject, number, _)| self.shown(subject, number));
        shown.ok_or_else(Refused::no_schema)
    }

    pub(super) fn last_id(&self) -> u32 {
        self.last_id
    }

    /// The level of one subject alone, or of all that have none.
    pub(super) fn own_level(&self, subject: Option<&str>) -> Option<Level> {
        let level = self.levels.get(&subject.map(str::to_owned)).copied();
        level.or_else(|| subject.is_none().then(Level::default))
    }

    /// The level that holds for a subject.
    pub(super) fn level(&self, subject: &str) -> Level {
        let own = self.own_level(Some(subject));
        own.or_else(|| self.own_level(None)).unwrap_or_default()
    }

    pub(super) fn own_mode(&self, subject: Option<&str>) -> Option<String> {
        let mode = self.modes.get(&subject.map(str::to_owned)).cloned();
        mode.or_else(|| subject.is_none().then(|| READ_WRITE.to_owned()))
    }

    /// What a new version of a subject has to get along with.
    pub(super) fn against(&self, subject: &str, level: Level) -> Vec<(u32, Arc<Schema>)> {
        let versions = self.subjects.get(subject).into_iter().flatten().rev();
        let there = versions.filter(|(_, version)| !version.is_deleted);
        let there = there.map(|(number, version)| (*number, Arc::clone(&version.schema)));
        match (level, level.is_transitive()) {
            (Level::None, _) => Vec::new(),
            (_, true) => there.collect(),
            (_, false) => there.take(1).collect(),
        }
    }

    // What may be done: the records that do it.

    /// Whether a subject may be written.
    pub(super) fn may_write(&self, subject: &str) -> Result<(), Refused> {
        if subject.is_empty()
            || subject.len() > SUBJECT_BYTES_MAX
            || subject.chars().any(char::is_control)
            || subject.starts_with(':')
        {
            let words = format!(
                "The specified subject '{}' is not a valid subject.",
                subject.escape_debug()
            );
            return Err(Refused::new(42_208, words));
        }
        if subject.starts_with(RESERVED) {
            return Err(Refused::not_permitted(format!(
                "Subject '{subject}' is of Wardent's own events: only Wardent writes it"
            )));
        }
        let mode = self.own_mode(Some(subject)).or_else(|| self.own_mode(None));
        match mode.as_deref() {
            Some(READ_WRITE) | None => Ok(()),
            Some(mode) => Err(Refused::not_permitted(format!(
                "Subject '{subject}' is in {mode} mode"
            ))),
        }
    }

    /// Whether a subject may have a level of its own, or all others one.
    pub(super) fn may_set_level(&self, subject: Option<&str>) -> Result<(), Refused> {
        let Some(subject) = subject else {
            return Ok(());
        };
        self.may_write(subject)?;
        if self.own_level(Some(subject)).is_none() && self.levels.len() >= SUBJECTS_MAX {
            let words =
                format!("{SUBJECTS_MAX} subjects have a level of their own, which is the most");
            return Err(Refused::too_much(words));
        }
        Ok(())
    }

    pub(super) fn register(&self, subject: &str, schema: &Schema) -> Result<Registering, Refused> {
        if let Ok(found) = self.find(subject, schema, false) {
            return Ok(Registering::There(found.id));
        }
        self.may_write(subject)?;
        let versions = self.subjects.get(subject);
        if versions.is_none() && self.subjects.len() >= SUBJECTS_MAX {
            let words = format!("there are {SUBJECTS_MAX} subjects, which is the most");
            return Err(Refused::too_much(words));
        }
        if versions.is_some_and(|versions| versions.len() >= VERSIONS_MAX) {
            return Err(Refused::too_much(format!(
                "Subject '{subject}' has {VERSIONS_MAX} versions, which is the most: delete one permanently"
            )));
        }
        if self.bytes + schema.text().len() > BYTES_MAX {
            let words = format!("all schemas together would have more than {BYTES_MAX} bytes");
            return Err(Refused::too_much(words));
        }
        let last = versions.and_then(BTreeMap::last_key_value);
        let version = following(last.map_or(0, |(number, _)| *number))?;
        let id = match self.known.get(schema.identity()) {
            Some(known) => known.id,
            None => following(self.last_id.max(OWN_ID_MAX))?,
        };
        let level = self.level(subject);
        Ok(Registering::New {
            value: SchemaValue {
                subject: subject.to_owned(),
                version,
                id,
                kind: schema.kind(),
                schema: schema.text().to_owned(),
                deleted: false,
                more: Map::new(),
            },
            against: self.against(subject, level),
            level,
        })
    }

    /// Deletes a version, or what is left of a deleted one. Says which it is.
    pub(super) fn delete_version(
        &self,
        subject: &str,
        which: Which,
        permanently: bool,
    ) -> Result<(u32, Vec<Record>), Refused> {
        self.may_write(subject)?;
        let shown = self.version(subject, which, true)?;
        let number = match which {
            Which::Number(number) => number,
            Which::Latest => self.version(subject, which, permanently)?.version,
        };
        let Some(version) = self.subjects.get(subject).and_then(|all| all.get(&number)) else {
            return Err(Refused::no_version(shown.version));
        };
        let record = match (version.is_deleted, permanently) {
            (true, true) => Record::Gone {
                subject: subject.to_owned(),
                version: number,
            },
            (false, false) => Record::Version(value_of(subject, number, version, true)),
            (true, false) => {
                let words = format!(
                    "Subject '{subject}' Version {number} was soft deleted.Set permanent=true to delete permanently"
                );
                return Err(Refused::new(40_406, words));
            }
            (false, true) => {
                let words = format!(
                    "Subject '{subject}' Version {number} was not deleted first before being permanently deleted"
                );
                return Err(Refused::new(40_407, words));
            }
        };
        Ok((number, vec![record]))
    }

    /// Deletes a subject, or what is left of a deleted one. Says which versions these are.
    pub(super) fn delete_subject(
        &self,
        subject: &str,
        permanently: bool,
    ) -> Result<(Vec<u32>, Vec<Record>), Refused> {
        self.may_write(subject)?;
        let all = self.versions(subject, true)?;
        let there = self.versions(subject, false).unwrap_or_default();
        let own = || subject.to_owned();
        if permanently {
            if !there.is_empty() {
                let words = format!(
                    "Subject '{subject}' was not deleted first before being permanently deleted"
                );
                return Err(Refused::new(40_405, words));
            }
            let gone = all.iter().map(|&version| Record::Gone {
                subject: own(),
                version,
            });
            let gone = gone.collect();
            return Ok((all, gone));
        }
        let Some(&up_to) = there.last() else {
            let words = format!(
                "Subject '{subject}' was soft deleted.Set permanent=true to delete permanently"
            );
            return Err(Refused::new(40_404, words));
        };
        let mut records = Vec::new();
        // The mark alone would be lost to a reader who meets it before the versions: compaction keeps the
        // order of what it keeps, and the versions come first.
        records.push(Record::Deleted {
            subject: own(),
            up_to,
        });
        if self.own_level(Some(subject)).is_some() {
            records.push(Record::Level {
                subject: Some(own()),
                level: None,
            });
        }
        Ok((there, records))
    }

    /// What is missing of Wardent's own schemas.
    pub(super) fn missing_own(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut subjects = BTreeSet::new();
        for own in OWN {
            let subject = format!("{}-value", own.topic);
            let Ok(schema) = Schema::read(Kind::Avro, own.text) else {
                continue;
            };
            let version = self
                .subjects
                .get(&subject)
                .and_then(|all| all.get(&own.version));
            let is_there = |version: &Version| {
                version.id == own.id && *version.schema == schema && !version.is_deleted
            };
            if !version.is_some_and(is_there) {
                records.push(Record::Version(SchemaValue {
                    subject: subject.clone(),
                    version: own.version,
                    id: own.id,
                    kind: Kind::Avro,
                    schema: schema.text().to_owned(),
                    deleted: false,
                    more: Map::new(),
                }));
            }
            subjects.insert(subject);
        }
        for subject in subjects {
            let level = Some(Level::BackwardTransitive);
            if self.own_level(Some(&subject)) != level {
                let subject = Some(subject);
                records.push(Record::Level { subject, level });
            }
        }
        records
    }
}

/// Sets the level or the mode of a subject, or of all others.
fn set<T>(
    settings: &mut BTreeMap<Option<String>, T>,
    subject: Option<String>,
    to: T,
) -> Result<(), String> {
    let is_long = |subject: &String| subject.len() > SUBJECT_BYTES_MAX;
    if subject.as_ref().is_some_and(is_long) {
        return Err(format!(
            "a subject has no more than {SUBJECT_BYTES_MAX} bytes"
        ));
    }
    if !settings.contains_key(&subject) && settings.len() > SETTINGS_MAX {
        return Err(format!("{SUBJECTS_MAX} subjects have one already"));
    }
    settings.insert(subject, to);
    Ok(())
}

/// The id or the version after this one.
fn following(number: u32) -> Result<u32, Refused> {
    let next = number.checked_add(1).filter(|next| *next <= NUMBER_MAX);
    next.ok_or_else(|| Refused::too_much(format!("{number} is taken, and the last there is")))
}

/// Bytes of what another registry says besides.
fn bytes_of(more: &Map<String, Value>) -> usize {
    match more.is_empty() {
        true => 0,
        false => serde_json::to_vec(more).map_or(0, |text| text.len()),
    }
}

/// Whether a subject is of Wardent's own events.
fn is_of_own(subject: &str) -> bool {
    let topic = subject.strip_suffix("-value");
    topic.is_some_and(|topic| OWN.iter().any(|own| own.topic == topic))
}

fn value_of(subject: &str, number: u32, version: &Version, deleted: bool) -> SchemaValue {
    SchemaValue {
        subject: subject.to_owned(),
        version: number,
        id: version.id,
        kind: version.schema.kind(),
        schema: version.schema.text().to_owned(),
        deleted,
        more: version.more.clone(),
    }
}

/// Whether an id of Wardent's own has its own meaning: under the subjects that only Wardent writes, also a
/// later one, or for the same schema under another.
fn is_own(id: u32, subject: &str, schema: &Schema) -> bool {
    let is_same =
        |text: &str| Schema::kept(Kind::Avro, text.to_owned()).identity() == schema.identity();
    subject.starts_with(RESERVED) || OWN.iter().any(|own| own.id == id && is_same(own.text))
}

#[cfg(test)]
mod tests;
