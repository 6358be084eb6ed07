//! What user agents are taken for, honest ones and hostile ones.

use std::sync::{Arc, LazyLock};

use super::*;
use crate::bots::Catalogue;

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
                      (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(Catalogue::shipped);

fn classify(user_agent: &str) -> Option<(&str, Category, bool)> {
    let bot = CATALOGUE.classify(user_agent.as_bytes());
    bot.map(|bot| (bot.name, bot.category, bot.entry.is_some()))
}

fn category(user_agent: &str) -> Option<Category> {
    classify(user_agent).map(|(_, category, _)| category)
}

#[test]
fn a_listed_bot_is_named_wherever_it_stands_and_however_it_is_written() {
    let gptbot = Some(("GPTBot", Category::AiTraining, true));
    assert_eq!(classify("GPTBot"), gptbot);
    assert_eq!(
        classify("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; gptbot/1.2)"),
        gptbot
    );
    assert_eq!(classify(&format!("{CHROME} GPTBOT/1.0")), gptbot);
    assert_eq!(
        classify("SQLMap/1.7"),
        Some(("sqlmap", Category::SecurityScanner, true))
    );
    assert_eq!(classify("\tsqlMAP  x"), classify("sqlmap/1.7"));
}

#[test]
fn blanks_are_one_however_many_and_whichever_they_are() {
    let validation = classify("Let's Encrypt validation server");
    assert_eq!(validation.map(|(name, ..)| name), Some("Let's Encrypt"));
    for blanks in ["  ", "\t", " \t ", &" ".repeat(500)] {
        let text = format!("x{blanks}let's{blanks}encrypt{blanks}validation");
        assert_eq!(classify(&text), validation, "{text:?}");
        // What stands before and after still counts, and names are cut where they stand.
        let inside = format!("x{blanks}xlet's{blanks}encrypt validation");
        assert_ne!(classify(&inside), validation, "{inside:?}");
        let named = format!("a{blanks}b (Zibble-Site{blanks}Checker)");
        assert_eq!(
            classify(&named),
            Some(("Zibble-Site", Category::Seo, false)),
            "{named:?}"
        );
        let named = format!("Mozilla/5.0{blanks}(compatible;{blanks}Zibble/1.0)");
        assert_eq!(classify(&named).map(|(name, ..)| name), Some("Zibble"));
        let person = format!("Mozilla/5.0 (iPhone;{blanks}CPU{blanks}like Mac{blanks}OS X)");
        assert_eq!(classify(&person), None, "{person:?}");
    }
    let catalogue = Catalogue::parse("seo\tFoo\ttoken=foo   bar").unwrap();
    assert!(catalogue.classify(b"foo bar").unwrap().entry.is_some());
}

#[test]
fn a_token_inside_a_word_is_not_one() {
    let text = "seo\tLCC\n";
    let catalogue = Catalogue::parse(text).unwrap();
    let ie = b"Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0; SLCC1)";
    assert_eq!(catalogue.classify(ie), None);
    assert!(catalogue.classify(b"x LCC").unwrap().entry.is_some());
    // Bytes beyond ASCII are no letters, so they hide nothing.
    assert!(
        catalogue
            .classify("ñLCC".as_bytes())
            .unwrap()
            .entry
            .is_some()
    );
}

#[test]
fn whoever_it_is_goes_before_how_it_is_built_and_the_longer_name_before_the_shorter() {
    assert_eq!(
        classify("python-requests/2.32 GPTBot"),
        classify("GPTBot/1.0")
    );
    let user = "compatible; ChatGPT-User/1.0; +https://openai.com/bot";
    assert_eq!(category(user), Some(Category::AiAssistant));
    let image = classify("Googlebot-Image/1.0");
    assert_eq!(image.map(|(name, ..)| name), Some("Googlebot-Image"));
}

#[test]
fn people_are_no_bots() {
    for user_agent in [
        CHROME,
        "Mozilla/5.0 (Linux; Android 6.0; CUBOT DINOSAUR Build/MRA58K; wv) AppleWebKit/537.36 \
         (KHTML, like Gecko) Version/4.0 Chrome/44.0.2403.119 Mobile Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, \
         like Gecko) Mobile/22B83 [FBAN/FBIOS;FBAV/489.0.0.38.78;FBBV/654321]",
        "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0; SLCC2)",
        "Mozilla/5.0 (X11; U; Linux; hu-HU) AppleWebKit/523.15 (KHTML, like Gecko, \
         Safari/419.3) Arora/0.4",
        "Lynx/2.8.9rel.1 libwww-FM/2.14 SSL-MM/1.4.1",
        "DoCoMo/2.0 F04B",
    ] {
        assert_eq!(classify(user_agent), None, "{user_agent}");
    }
}

#[test]
fn an_unlisted_bot_that_says_so_is_unknown_by_its_own_name() {
    for (user_agent, name) in [
        ("Zibblebot/1.0", "Zibblebot"),
        (
            "Mozilla/5.0 (compatible; Zibble/1.0; +https://zibble.example/)",
            "Zibble",
        ),
        (
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; Zibble 2) Chrome/120.0",
            "Zibble",
        ),
        ("Mozilla/5.0 (Zibble; me@zibble.example)", "me"),
        ("Zibble+ (https://zibble.example)", "unnamed"),
    ] {
        assert_eq!(
            classify(user_agent),
            Some((name, Category::Unknown, false)),
            "{user_agent}"
        );
    }
}

#[test]
fn whom_an_application_has_asked_to_call_is_none_of_the_kinds_that_are_kept_out() {
    for user_agent in [
        "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "PayPal/AUHR-214.0-60519836",
        "Recurly Webhooks/2.0 (+https://docs.recurly.com)",
        "Svix-Webhooks/1.20 (sender-9YMgn; +https://www.svix.com/http-sender/)",
        "Zendesk Webhook",
        "SendGrid Event API",
        "Make/production",
        "SFDC-Callout/58.0",
        "Mozilla/5.0 (compatible; Let's Encrypt validation server; +https://www.letsencrypt.org)",
        "DigiCert DCV Bot/1.1",
        "Google Trust Services (+https://pki.goog)",
        "Chrome Privacy Preserving Prefetch Proxy",
    ] {
        let found = classify(user_agent);
        let category = found.map(|(_, category, _)| category);
        assert_eq!(category, Some(Category::Unknown), "{user_agent}: {found:?}");
    }
}

#[test]
fn a_mailbox_is_a_bots_and_a_build_host_is_not() {
    assert!(category("Windows me@zibble.example").is_some());
    for person in [
        "Android LG-P698 Build/alex@hawk-droid.rev3",
        "Windows @zibble.example",
        "Windows me@zibble",
        "Windows me@.example",
        "Windows me@zibble.e",
    ] {
        assert_eq!(category(person), None, "{person}");
    }
}

#[test]
fn words_put_an_unlisted_bot_into_its_category() {
    assert_eq!(category("Zibble-Gpt/2.0"), Some(Category::AiTraining));
    assert_eq!(category("ZibbleGPT-User/2.0"), Some(Category::AiAssistant));
    assert_eq!(
        category("zibble-security-scan/1"),
        Some(Category::SecurityScanner)
    );
    assert_eq!(category("zibblehttpclient/1"), Some(Category::HttpLibrary));
    assert_eq!(
        category(&format!("{CHROME} puppeteer")),
        Some(Category::HeadlessBrowser)
    );
}

#[test]
fn a_hint_counts_only_where_no_device_is_named() {
    assert_eq!(category("ZibbleSearch/1.0"), Some(Category::Unknown));
    assert_eq!(category("ZibbleSearch/1.0 (iPhone; iOS 18.1)"), None);
}

#[test]
fn a_short_product_of_no_meaning_may_be_a_person() {
    assert_eq!(classify("Zibble/1.0"), None);
}

#[test]
fn no_user_agent_is_an_unknown_bot_however_it_is_not_there() {
    for user_agent in ["", " ", "\t \t"] {
        assert_eq!(
            classify(user_agent),
            Some((MISSING, Category::Unknown, false))
        );
    }
}

#[test]
fn a_user_agent_too_long_to_be_read_is_an_unknown_bot() {
    let fits = format!("Windows {}", "x".repeat(SCANNED_MAX - 8));
    assert_eq!(classify(&fits), None);
    let long = format!("{fits}x");
    assert_eq!(classify(&long), Some((OVERLONG, Category::Unknown, false)));
    let listed = format!("GPTBot {long}");
    assert_eq!(
        classify(&listed),
        Some(("GPTBot", Category::AiTraining, true))
    );
}

#[test]
fn a_made_up_name_is_bounded_and_printable() {
    let long = format!("{}bot", "x".repeat(200));
    let (name, ..) = classify(&long).unwrap();
    assert_eq!(name.len(), NAME_MAX);
    let bot = CATALOGUE.classify(b"\xff\xfezibblebot\x01");
    assert_eq!(bot.unwrap().name, "zibblebot");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_classified(user_agent: Vec<u8>) {
        let bot = CATALOGUE.classify(&user_agent);
        let name = bot.map_or("", |bot| bot.name);
        proptest::prop_assert!(name.len() <= NAME_MAX);
    }
}
