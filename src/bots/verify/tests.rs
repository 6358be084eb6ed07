//! Who is verified, who is an impostor, and who nobody can tell.

use std::{
    future::pending,
    sync::atomic::{AtomicBool, AtomicUsize},
};

use super::*;
use crate::bots::Catalogue;

/// Noon of the day the lists are from.
const TODAY: u64 = 1_788_350_400_000;
const LATER: u64 = TODAY + 365 * 24 * 3_600 * 1_000;

const NETWORKS: &str = "[foo]\nas-of 2026-09-02\n198.51.100.0/24\n";

const CATALOGUE: &str = "search-engine\tListBot\tnetworks=foo\n\
                         search-engine\tNameBot\tdns=crawl.example\n\
                         search-engine\tBothBot\tnetworks=foo\tdns=crawl.example\n\
                         search-engine\tBareBot\n";

const LISTED: &str = "198.51.100.7";
const STRANGER: &str = "203.0.113.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A DNS of a few names.
#[derive(Debug, Clone, Default)]
struct Dns {
    names: HashMap<IpAddr, Vec<String>>,
    addresses: HashMap<String, Result<Vec<IpAddr>, Failed>>,
    /// Whether the reverse lookup fails; shared, so that a test can break it on the way.
    is_broken: Arc<AtomicBool>,
    is_silent: bool,
    asked: Arc<AtomicUsize>,
}

impl Dns {
    fn name(mut self, ip: &str, name: &str) -> Self {
        let names = self.names.entry(ip.parse().unwrap()).or_default();
        names.push(name.to_owned());
        self
    }

    fn address(mut self, name: &str, found: Result<&[&str], Failed>) -> Self {
        let found = found.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect());
        self.addresses.insert(name.to_owned(), found);
        self
    }
}

impl Resolve for Dns {
    async fn names(&self, ip: IpAddr) -> Result<Vec<String>, Failed> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_silent {
            pending::<()>().await;
        }
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Failed);
        }
        Ok(self.names.get(&ip).cloned().unwrap_or_default())
    }

    async fn addresses(&self, name: &str, _like: IpAddr) -> Result<Vec<IpAddr>, Failed> {
        let found = self.addresses.get(name).cloned();
        found.unwrap_or(Ok(Vec::new()))
    }
}

/// A verifier whose questions are answered by `dns` in a task of their own.
struct Rig {
    verifier: Verifier,
    catalogue: Catalogue,
    clock: Clock,
}

impl Rig {
    fn new(dns: Dns) -> Self {
        Self::with_deadline(dns, DEADLINE)
    }

    fn with_deadline(dns: Dns, deadline: Duration) -> Self {
        let (verifier, mut questions) = Verifier::new(Networks::parse(NETWORKS).unwrap());
        questions.deadline = deadline;
        let clock = Clock::manual(TODAY);
        tokio::spawn(questions.answer(dns, clock.clone()));
        Self {
            verifier,
            catalogue: Catalogue::parse(CATALOGUE).unwrap(),
            clock,
        }
    }

    fn look(&self, user_agent: &str, from: &str) -> Standing {
        self.look_at(user_agent, from, TODAY)
    }

    fn look_at(&self, user_agent: &str, from: &str, unix_ms: u64) -> Standing {
        let bot = self.catalogue.classify(user_agent.as_bytes()).unwrap();
        let now_ns = self.clock.monotonic_ns();
        self.verifier.look(ip(from), &bot, now_ns, unix_ms)
    }

    /// Looks, waits until the answer is in force, and looks again.
    async fn look_twice(&self, user_agent: &str, from: &str) -> [Standing; 2] {
        let before = self.verifier.figures();
        let first = self.look(user_agent, from);
        self.until(|now| now.answered + now.failed > before.answered + before.failed)
            .await;
        [first, self.look(user_agent, from)]
    }

    async fn until(&self, is_so: impl Fn(Figures) -> bool) {
        let so = async {
            while !is_so(self.verifier.figures()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), so).await.unwrap();
    }
}

#[tokio::test]
async fn a_published_network_verifies_at_once() {
    let rig = Rig::new(Dns::default());
    assert_eq!(rig.look("ListBot/1.0", LISTED), Standing::Verified);
    assert_eq!(rig.look("BothBot/1.0", LISTED), Standing::Verified);
    assert_eq!(rig.verifier.figures().asked, 0);
}

#[tokio::test]
async fn outside_fresh_networks_and_without_a_domain_it_is_an_impostor() {
    let rig = Rig::new(Dns::default());
    assert_eq!(rig.look("ListBot/1.0", STRANGER), Standing::Impostor);
}

#[tokio::test]
async fn old_networks_still_prove_and_no_longer_disprove() {
    let rig = Rig::new(Dns::default());
    assert_eq!(rig.look_at("ListBot", LISTED, LATER), Standing::Verified);
    assert_eq!(rig.look_at("ListBot", STRANGER, LATER), Standing::Unknown);
}

#[tokio::test]
async fn whoever_publishes_nothing_is_unknown() {
    let rig = Rig::new(Dns::default());
    for user_agent in ["BareBot", "SomeOtherBot", ""] {
        assert_eq!(rig.look(user_agent, STRANGER), Standing::Unknown);
    }
}

#[tokio::test]
async fn a_private_address_is_nobodys_and_not_asked_for() {
    let rig = Rig::new(Dns::default());
    for private in [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "::1",
        "fd00::1",
        "fe80::1",
    ] {
        assert_eq!(rig.look("NameBot", private), Standing::Unknown, "{private}");
        assert_eq!(rig.look("ListBot", private), Standing::Unknown, "{private}");
    }
    assert_eq!(rig.verifier.figures().asked, 0);
}

#[tokio::test]
async fn a_name_that_leads_back_verifies_once_the_dns_has_answered() {
    let dns = Dns::default()
        .name(STRANGER, "Host-7.Crawl.Example.")
        .address("Host-7.Crawl.Example.", Ok(&[STRANGER]));
    let rig = Rig::new(dns);
    assert_eq!(
        rig.look_twice("NameBot", STRANGER).await,
        [Standing::Unknown, Standing::Verified]
    );
    // Networks may be incomplete.
    assert_eq!(rig.look("BothBot", STRANGER), Standing::Verified);
}

#[tokio::test]
async fn a_name_in_the_domain_that_does_not_lead_back_is_an_impostors() {
    let dns = Dns::default()
        .name(STRANGER, "host.crawl.example.")
        .address("host.crawl.example.", Ok(&["192.0.2.1"]));
    let rig = Rig::new(dns);
    assert_eq!(
        rig.look_twice("NameBot", STRANGER).await,
        [Standing::Unknown, Standing::Impostor]
    );
}

#[tokio::test]
async fn a_name_outside_the_domain_is_an_impostors_even_if_it_leads_back() {
    for name in ["crawl.example.evil.example.", "notcrawl.example."] {
        let dns = Dns::default()
            .name(STRANGER, name)
            .address(name, Ok(&[STRANGER]));
        let rig = Rig::new(dns);
        let [_, standing] = rig.look_twice("NameBot", STRANGER).await;
        assert_eq!(standing, Standing::Impostor, "{name}");
    }
}

#[tokio::test]
async fn an_address_without_a_name_is_an_impostors() {
    let rig = Rig::new(Dns::default());
    let [_, standing] = rig.look_twice("NameBot", STRANGER).await;
    assert_eq!(standing, Standing::Impostor);
}

#[tokio::test]
async fn one_confirmed_name_of_several_is_enough() {
    let dns = Dns::default()
        .name(STRANGER, "other.example.")
        .name(STRANGER, "a.crawl.example.")
        .name(STRANGER, "b.crawl.example.")
        .address("a.crawl.example.", Err(Failed))
        .address("b.crawl.example.", Ok(&[STRANGER]));
    let rig = Rig::new(dns);
    let [_, standing] = rig.look_twice("NameBot", STRANGER).await;
    assert_eq!(standing, Standing::Verified);
}

#[tokio::test]
async fn nobody_is_an_impostor_for_a_lookup_that_failed() {
    let forward_fails = Dns::default()
        .name(STRANGER, "host.crawl.example.")
        .address("host.crawl.example.", Err(Failed));
    let reverse_fails = Dns::default();
    reverse_fails.is_broken.store(true, Ordering::Relaxed);
    for dns in [forward_fails, reverse_fails] {
        let rig = Rig::new(dns);
        let [_, standing] = rig.look_twice("NameBot", STRANGER).await;
        assert_eq!(standing, Standing::Unknown);
    }
}

#[tokio::test]
async fn a_silent_dns_is_given_up_and_asked_again_after_a_minute() {
    let dns = Dns {
        is_silent: true,
        ..Dns::default()
    };
    let asked = Arc::clone(&dns.asked);
    let rig = Rig::with_deadline(dns, Duration::from_millis(1));
    let [_, standing] = rig.look_twice("NameBot", STRANGER).await;
    assert_eq!(standing, Standing::Unknown);
    assert_eq!(rig.verifier.figures().failed, 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    rig.clock.advance_ms(60_000);
    let [_, standing] = rig.look_twice("NameBot", STRANGER).await;
    assert_eq!(standing, Standing::Unknown);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_confirmed_name_outlives_a_dns_that_breaks_but_not_for_ever() {
    let dns = Dns::default()
        .name(STRANGER, "host.crawl.example.")
        .address("host.crawl.example.", Ok(&[STRANGER]));
    let is_broken = Arc::clone(&dns.is_broken);
    let rig = Rig::new(dns);
    rig.look_twice("NameBot", STRANGER).await;
    is_broken.store(true, Ordering::Relaxed);
    rig.clock.advance_ms(7 * 3_600 * 1_000);
    assert_eq!(
        rig.look_twice("NameBot", STRANGER).await,
        [Standing::Verified, Standing::Verified]
    );
    rig.clock.advance_ms(6 * 3_600 * 1_000);
    assert_eq!(
        rig.look_twice("NameBot", STRANGER).await,
        [Standing::Unknown, Standing::Unknown]
    );
}

#[tokio::test]
async fn a_full_queue_costs_a_verdict_and_is_counted() {
    let (verifier, _nobody_answers) = Verifier::new(Networks::parse(NETWORKS).unwrap());
    let catalogue = Catalogue::parse(CATALOGUE).unwrap();
    let bot = catalogue.classify(b"NameBot").unwrap();
    for _ in 0..QUESTIONS_MAX + 3 {
        let standing = verifier.look(ip(STRANGER), &bot, 0, TODAY);
        assert_eq!(standing, Standing::Unknown);
    }
    let figures = verifier.figures();
    assert_eq!(figures.asked, QUESTIONS_MAX as u64);
    assert_eq!(figures.queue_full, 3);
}

#[tokio::test]
async fn many_questions_about_one_address_are_one_lookup() {
    let dns = Dns::default();
    let asked = Arc::clone(&dns.asked);
    let rig = Rig::new(dns);
    for _ in 0..100 {
        rig.look("NameBot", STRANGER);
    }
    rig.until(|now| now.answered == 1).await;
    assert_eq!(rig.look("NameBot", STRANGER), Standing::Impostor);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_task_ends_with_its_verifier() {
    let (verifier, questions) = Verifier::new(Networks::parse(NETWORKS).unwrap());
    let task = tokio::spawn(questions.answer(Dns::default(), Clock::manual(TODAY)));
    drop(verifier);
    timeout(Duration::from_secs(20), task)
        .await
        .unwrap()
        .unwrap();
}

#[test]
fn what_ends_soonest_makes_room_and_never_the_newest() {
    let mut answers = Answers::new();
    for index in 0..=u32::try_from(ANSWERS_MAX).unwrap() {
        let names = Err(Failed);
        remember(&mut answers, IpAddr::V4(index.into()), names, index.into());
    }
    assert_eq!(answers.len(), ANSWERS_MAX);
    assert!(!answers.contains_key(&ip("0.0.0.0")));
    // A failure ends sooner than all the answers that are there, and still is noted.
    answers
        .values_mut()
        .for_each(|answer| answer.ends_ns = u64::MAX);
    remember(&mut answers, ip(STRANGER), Err(Failed), 0);
    assert!(answers.contains_key(&ip(STRANGER)));
    assert_eq!(answers.len(), ANSWERS_MAX);
}

#[test]
fn refreshed_networks_come_into_force_unless_they_look_like_a_mistake() {
    let (verifier, _questions) = Verifier::new(Networks::parse(NETWORKS).unwrap());
    let catalogue = Catalogue::parse(CATALOGUE).unwrap();
    let bot = catalogue.classify(b"ListBot").unwrap();
    let other = Networks::parse("[other]\nas-of 2026-09-02\n203.0.113.0/24\n").unwrap();
    assert!(verifier.replace_networks(other).is_err());
    let refreshed = format!("{NETWORKS}203.0.113.0/24\n");
    let refreshed = Networks::parse(&refreshed).unwrap();
    assert_eq!(verifier.replace_networks(refreshed), Ok(()));
    assert_eq!(
        verifier.look(ip(STRANGER), &bot, 0, TODAY),
        Standing::Verified
    );
}
