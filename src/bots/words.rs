//! Words that give away a bot nobody has listed, and words that speak for a device.
//!
//! A list is always behind. What does not change is how bots describe themselves: by words such as
//! `crawler`, by the address of whoever answers for them, by the library they are built from. Words
//! of the first kind ([`Sign::Says`]) count wherever they stand. Words that people's apps use too
//! ([`Sign::Hints`]) count only where nothing names a device, a system or a browser: a person's
//! browser always names one. Neither rule looks at the mere shape of a user agent.
//! `tests/bots.rs` holds the figures.

use super::category::Category::{
    self, AiAssistant, AiTraining, HeadlessBrowser, HttpLibrary, SecurityScanner, Seo, Unknown,
};

/// Where a text has to stand to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// At the beginning of the user agent.
    Beginning,
    /// No ASCII letter or digit before it.
    WordStart,
    /// No ASCII letter after it.
    WordEnd,
    /// No ASCII letter or digit before or after it.
    Word,
    /// Anywhere.
    Anywhere,
}

/// What a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A bot of this category.
    Says(Category),
    /// A bot of this category, unless something names a device.
    Hints(Category),
    /// As [`Sign::Says`] unknown, unless it is the end of `Cubot`, a maker of phones.
    Bot,
    /// The `@` of what may be an e-mail address.
    At,
    /// The end of what may be a host name.
    Domain,
    /// What follows may be a bot's name: `(compatible; Name/1.0`.
    Compatible,
    /// What follows may be a bot's name: `Mozilla/5.0 Name/1.0`.
    Mozilla,
    /// The engine's comment goes on where every browser closes it: `like Gecko; Name/1.0)`.
    Gecko,
    /// A device, a system or a browser: a person, unless something says otherwise.
    Device,
}

/// A word, where it has to stand, and what it means.
pub(super) type Word = (&'static str, Place, Sign);

/// All words, in lower case.
pub(super) fn words() -> impl Iterator<Item = Word> {
    let says = SAYS.iter().flat_map(|(category, place, words)| {
        let sign = Sign::Says(*category);
        words.iter().map(move |word| (*word, *place, sign))
    });
    let hints = HINTS.iter().flat_map(|(category, place, words)| {
        let sign = Sign::Hints(*category);
        words.iter().map(move |word| (*word, *place, sign))
    });
    let devices = DEVICES.iter().flat_map(|(place, words)| {
        let words = words.iter();
        words.map(move |word| (*word, *place, Sign::Device))
    });
    let domains = DOMAINS.iter();
    let domains = domains.map(|end| (*end, Place::WordEnd, Sign::Domain));
    says.chain(hints)
        .chain(devices)
        .chain(domains)
        .chain(SPECIAL.iter().copied())
}

type Words = &'static [&'static str];

const SPECIAL: [Word; 7] = [
    ("bot", Place::WordEnd, Sign::Bot),
    ("@", Place::Anywhere, Sign::At),
    ("compatible;", Place::WordStart, Sign::Compatible),
    ("mozilla/5.0 ", Place::Beginning, Sign::Mozilla),
    ("khtml, like gecko;", Place::WordStart, Sign::Gecko),
    ("khtml, like gecko,", Place::WordStart, Sign::Gecko),
    ("[at]", Place::Anywhere, Sign::Says(Unknown)),
];

#[rustfmt::skip]
const SAYS: &[(Category, Place, Words)] = &[
    (Unknown, Place::Anywhere, &[
        "robot", "b0t", "crawl", "spider", "scrape", "scrapy", "scraping", "slurp", "fetcher", "archiver",
        "webarchiv", "web archiv", "web-archiv", "indexer", "monitor", "validator", "harvest", "screenshot",
        "synthetic", "webtest", "web-test", "favicon", "imageproxy", "http:/", "https:/",
    ]),
    (Unknown, Place::WordStart, &["fetch", "survey"]),
    (Unknown, Place::WordEnd, &["bots", "preview"]),
    (Unknown, Place::Word, &["research"]),
    (Seo, Place::Anywhere, &[
        "linkcheck", "link-check", "link check", "sitecheck", "site-check", "site check", "siteaudit",
        "site-audit", "site audit", "backlink", "lighthouse", "pagespeed",
    ]),
    (SecurityScanner, Place::Anywhere, &[
        "securityscan", "security-scan", "security scan", "vulnerab", "pentest",
    ]),
    (HttpLibrary, Place::Anywhere, &[
        "python", "curl/", "libcurl", "wget", "httpclient", "http-client", "http client", "http_client",
        "httpurl", "libwww-perl", "go-http", "node-fetch", "axios", "aiohttp", "guzzle", "urllib",
    ]),
    (HttpLibrary, Place::WordStart, &["lwp"]),
    (HttpLibrary, Place::Word, &["perl"]),
    (HeadlessBrowser, Place::WordStart, &["headless"]),
    (HeadlessBrowser, Place::Anywhere, &[
        "phantomjs", "selenium", "puppeteer", "playwright", "cypress",
    ]),
];

#[rustfmt::skip]
const HINTS: &[(Category, Place, Words)] = &[
    (AiTraining, Place::Anywhere, &[
        "gpt", "llm", "claude", "anthropic", "openai", "mistral", "gemini", "deepseek", "cohere", "perplexity",
        "copilot", "aibot", "aicrawler", "artificial-intelligence", "artificial intelligence",
    ]),
    (AiTraining, Place::WordEnd, &["-ai"]),
    (AiTraining, Place::WordStart, &[
        "ai-", "ai bot", "ai crawl", "ai agent", "ai scrap", "ai search", "oai-", "xai", "grok", "llama", "qwen",
        "tongyi", "doubao", "moonshot", "kimi", "huggingface", "hugging face", "langchain", "firecrawl", "tavily",
        "jina", "phind", "notebooklm", "vertex", "bedrock", "agentcore", "agentic", "genai", "neural",
        "machine learning", "machine-learning",
    ]),
    (AiTraining, Place::Anywhere, &["crawl4ai", "chatbot", "meta-external", "bytedance", "tiktokspider"]),
    (AiAssistant, Place::WordEnd, &["-user"]),
    (SecurityScanner, Place::Word, &["nessus", "openvas", "masscan", "zgrab", "nuclei"]),
    (HttpLibrary, Place::Anywhere, &[
        "java", "ruby", "php", "rust", "jersey", "gradle", "maven", "jetty", "resty", "undici", "mechanize",
        "postman", "httpie", "libsoup", "docker", "kube", "grpc",
    ]),
    (HttpLibrary, Place::WordStart, &["lib", "go/", "go ", "deno", "bun/", "npm", "pnpm", "ureq", "node"]),
    (Seo, Place::Anywhere, &["seo"]),
    (Unknown, Place::Anywhere, &[
        "aggreg", "amazon", "analy", "apache", "archiv", "audit", "bing", "bridge", "cache", "capture", "catalog",
        "cert", "check", "client", "cloud", "collect", "content", "convert", "copy", "cron", "detect", "digest",
        "discover", "dns", "domain", "download", "embed", "engine", "expand", "explor", "extract", "facebook",
        "feed", "fetch", "find", "generator", "google", "grab", "hook", "http", "hunt", "imag", "import", "inspect",
        "intelligen", "link", "lookup", "mail", "manager", "market", "metauri", "microsoft", "mirror", "newsg",
        "onebox", "package", "page", "parse", "perf", "ping", "pipeline", "plugin", "probe", "proxy", "rank",
        "relay", "render", "report", "request", "review", "robo", "rss", "scan", "scorer", "script", "search",
        "security", "server", "service", "shot", "site", "snapshot", "sniff", "ssl", "stat", "suck", "synapse",
        "thumb", "tool", "track", "transcri", "unfurl", "unshorten", "upload", "uptime", "url", "valid", "virus",
        "walk", "watcher", "worm", "yahoo", "yandex", "baidu", "indexing",
    ]),
    (Unknown, Place::WordStart, &["api", "data", "get", "test", "web", "www.", "monit", "pod"]),
    (Unknown, Place::WordEnd, &["api", "agent", "sync", "tester"]),
    (Unknown, Place::Word, &["ad", "ads", "apple"]),
];

/// The ends of host names. What a bot's name is made of: `archive.org_bot`, `Siteimprove.com`.
const DOMAINS: &[&str] = &[
    ".com", ".org", ".net", ".io", ".ai", ".dev", ".app", ".co", ".info", ".me", ".ru", ".de",
    ".cz", ".fr", ".nl", ".eu", ".uk", ".jp", ".cn", ".ch", ".it", ".es", ".pl", ".se",
];

#[rustfmt::skip]
const DEVICES: &[(Place, Words)] = &[
    (Place::Anywhere, &[
        "amiga", "android", "arachne", "bada", "beos", "blackberry", "brew", "browse", "bsd", "cfnetwork", "cinnamon",
        "cldc", "crkey", "dalvik", "darwin", "docomo", "dolfin", "fban", "firefox", "haiku", "ipad", "iphone", "ipod",
        "itunes", "j-phone", "libww", "linemode", "linux", "lynx", "mac os", "mac_", "macintosh", "macos", "meego",
        "midp", "mobile", "mosaic", "mozilla/1.", "mozilla/2.", "mozilla/3.", "mozilla/4.", "msie", "netfront",
        "nintendo", "nokia", "obigo", "omniweb", "opera", "os/2", "phone", "playbook", "playstation", "polaris",
        "profile/", "quicktime", "risc os", "roku", "samsung", "sec-", "series60", "sunos", "symbian", "teleca",
        "tizen", "trident", "tv", "tvos", "ucbrowser", "ucweb", "unix", "up.browser", "up.link", "w3m", "wap",
        "watchos", "webexplorer", "webos", "win32", "win9", "windows", "worldwideweb", "x11", "syllable", "ps3",
    ]),
    (Place::Word, &["ios", "os x"]),
    (Place::Beginning, &["links ", "elinks"]),
];
