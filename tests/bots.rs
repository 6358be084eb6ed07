//! How well bots are told from people, on a labelled sample of user agents.
//!
//! Beside the whole catalogue, the words alone are measured: they stand for the bots that no list
//! knows yet, and whoever tunes a token cannot improve them by accident.
#![expect(
    clippy::unwrap_used,
    reason = "a broken fixture should stop the test loudly"
)]
#![expect(clippy::print_stdout, reason = "one test shows, for whoever tunes")]

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use wardent::bots::{Catalogue, Category};

/// Label, kind and user agent, tab-separated; `tests/data/SOURCES.md` says where each is from.
const SAMPLE: &str = include_str!("data/user-agents.tsv");

/// Kinds of people's clients that are browsers.
const BROWSERS: [&str; 5] = ["mobile", "desktop", "tablet", "tv", "legacy-desktop"];

/// A share of a number of user agents.
#[derive(Debug, Default)]
struct Share {
    hits: usize,
    of: usize,
}

impl Share {
    fn count(&mut self, is_hit: bool) {
        self.of += 1;
        self.hits += usize::from(is_hit);
    }

    /// Whether it is at least so many of ten thousand.
    fn at_least(&self, per_10_000: usize) -> bool {
        self.of > 0 && self.hits * 10_000 >= per_10_000 * self.of
    }

    fn at_most(&self, per_10_000: usize) -> bool {
        self.of > 0 && self.hits * 10_000 <= per_10_000 * self.of
    }
}

#[derive(Debug, Default)]
struct Figures {
    bots_found: Share,
    ai_found: Share,
    ai_in_an_ai_category: Share,
    people_taken_for_bots: Share,
    browsers_taken_for_bots: Share,
}

fn measure(catalogue: &Catalogue) -> Figures {
    let mut figures = Figures::default();
    for line in SAMPLE.lines() {
        let mut fields = line.splitn(3, '\t');
        let mut field = || fields.next().unwrap();
        let (label, kind, user_agent) = (field(), field(), field());
        let found = catalogue.classify(user_agent.as_bytes());
        match label {
            "bot" => {
                figures.bots_found.count(found.is_some());
                if kind.starts_with("ai-") {
                    figures.ai_found.count(found.is_some());
                    let is_ai = found.is_some_and(|bot| {
                        matches!(
                            bot.category,
                            Category::AiTraining | Category::AiSearch | Category::AiAssistant
                        )
                    });
                    figures.ai_in_an_ai_category.count(is_ai);
                }
            }
            "human" => {
                figures.people_taken_for_bots.count(found.is_some());
                if BROWSERS.contains(&kind) {
                    figures.browsers_taken_for_bots.count(found.is_some());
                }
            }
            _ => panic!("{label:?} is no label"),
        }
    }
    figures
}

#[test]
fn the_shipped_catalogue_finds_bots_and_leaves_people_alone() {
    let figures = measure(&Catalogue::shipped());
    assert!(figures.bots_found.at_least(9_000), "{figures:?}");
    assert!(figures.ai_found.at_least(9_850), "{figures:?}");
    // The sample calls fourteen spiders of search engines and SEO tools "ai-training".
    assert!(figures.ai_in_an_ai_category.at_least(8_900), "{figures:?}");
    assert!(figures.people_taken_for_bots.at_most(25), "{figures:?}");
    assert!(figures.browsers_taken_for_bots.at_most(10), "{figures:?}");
}

#[test]
fn words_alone_find_most_bots_that_no_list_knows() {
    let nobody = Catalogue::parse("unknown\tnobody-is-called-this").unwrap();
    let figures = measure(&nobody);
    assert!(figures.bots_found.at_least(8_600), "{figures:?}");
    assert!(figures.ai_found.at_least(9_600), "{figures:?}");
    assert!(figures.people_taken_for_bots.at_most(25), "{figures:?}");
    assert!(figures.browsers_taken_for_bots.at_most(10), "{figures:?}");
}

/// Shows what is missed and who is taken wrongly: run it with `--ignored --nocapture` while tuning.
#[test]
#[ignore = "prints, for whoever tunes the words"]
fn show_what_the_words_alone_get_wrong() {
    let nobody = Catalogue::parse("unknown\tnobody-is-called-this").unwrap();
    let shipped = Catalogue::shipped();
    println!("{:#?}\n{:#?}", measure(&shipped), measure(&nobody));
    for line in SAMPLE.lines() {
        let (label, rest) = line.split_once('\t').unwrap();
        let (_, user_agent) = rest.split_once('\t').unwrap();
        let words = nobody.classify(user_agent.as_bytes());
        let listed = shipped.classify(user_agent.as_bytes());
        if (label == "human") == words.is_some()
            || (label == "human") == listed.is_some()
            || rest.starts_with("ai-")
        {
            println!(
                "{:?}\t{:?}\t{line}",
                listed.map(|bot| (bot.category.word(), bot.name)),
                words.map(|bot| bot.name)
            );
        }
    }
}

/// Runs `wardent bots …` with this standard input; exit status, output, complaints.
fn wardent_bots(arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wardent"))
        .arg("bots")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn user_agents_on_standard_input_are_classified_line_by_line() {
    let input = b"GPTBot/1.2\r\n\xff\xfe Firefox on Linux\n\nZibbleCrawler";
    let (status, said, _) = wardent_bots(&["classify"], input);
    assert_eq!(status, Some(0));
    assert_eq!(
        said,
        "ai-training\tGPTBot\nhuman\nunknown\tno user agent\nunknown\tZibbleCrawler\n"
    );
}

#[test]
fn the_list_is_json_for_programs() {
    let (status, said, _) = wardent_bots(&["list", "--output", "json"], b"");
    assert_eq!(status, Some(0));
    let bots: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    assert_eq!(bots.len(), Catalogue::shipped().entries().len());
    let googlebot = bots.iter().find(|bot| bot["name"] == "Googlebot").unwrap();
    assert_eq!(googlebot["category"], "search-engine");
    assert_eq!(googlebot["dns"][0], "googlebot.com");
}

#[test]
fn a_catalogue_that_is_wrong_is_a_bad_configuration() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "seo\tFooBot\nseos\tBarBot\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (status, said, complaint) = wardent_bots(&["list", "--catalogue", path], b"");
    assert_eq!(status, Some(78));
    assert_eq!(said, "");
    let expected = format!("{path}:2:1: \"seos\" is no category: use one of ai-training,");
    assert!(complaint.starts_with(&expected), "{complaint}");
    let (status, ..) = wardent_bots(&["frobnicate"], b"");
    assert_eq!(status, Some(2));
}
