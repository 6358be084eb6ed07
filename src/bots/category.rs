//! The kinds of bot a policy tells apart, and what it does with each.

use std::fmt;

/// A kind of client that is no person. The words are the policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Collects text to train models.
    AiTraining,
    /// Feeds an answer engine.
    AiSearch,
    /// Fetches a page because a person asked an assistant: somebody waits for it.
    AiAssistant,
    /// Measures rankings, links and advertisements.
    Seo,
    /// Looks for holes.
    SecurityScanner,
    /// A programming library or a tool. Also what native apps speak through.
    HttpLibrary,
    /// A browser that nobody looks at.
    HeadlessBrowser,
    /// Feeds a search engine.
    SearchEngine,
    /// None of these: monitors, feed readers, link previews, archives, webhooks, and whoever says
    /// that it is a bot and is not known.
    Unknown,
}

impl Category {
    /// Every category, in the order in which a policy lists them.
    pub const ALL: [Self; 9] = [
        Self::AiTraining,
        Self::AiSearch,
        Self::AiAssistant,
        Self::Seo,
        Self::SecurityScanner,
        Self::HttpLibrary,
        Self::HeadlessBrowser,
        Self::SearchEngine,
        Self::Unknown,
    ];

    /// The policy's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AiTraining => "ai-training",
            Self::AiSearch => "ai-search",
            Self::AiAssistant => "ai-assistant",
            Self::Seo => "seo",
            Self::SecurityScanner => "security-scanner",
            Self::HttpLibrary => "http-library",
            Self::HeadlessBrowser => "headless-browser",
            Self::SearchEngine => "search-engine",
            Self::Unknown => "unknown",
        }
    }

    /// The category of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|category| category.word() == word)
    }

    /// Whether it says how a client is built, and not who sends it.
    pub const fn is_only_a_tool(self) -> bool {
        matches!(self, Self::HttpLibrary | Self::HeadlessBrowser)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What is done with a bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is refused.
    Block,
    /// It passes, and the application is told what it is.
    Tag,
    /// It passes within a limit of its own.
    Limit,
    /// It passes unless it is shown not to be whom it names.
    Verify,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] = [
        Self::Allow,
        Self::Block,
        Self::Tag,
        Self::Limit,
        Self::Verify,
    ];

    /// The policy's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Tag => "tag",
            Self::Limit => "limit",
            Self::Verify => "verify",
        }
    }
}

/// What is done with each category: total, and one load to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    ai_training: Action,
    ai_search: Action,
    ai_assistant: Action,
    seo: Action,
    security_scanner: Action,
    http_library: Action,
    headless_browser: Action,
    search_engine: Action,
    unknown: Action,
}

impl Actions {
    /// The same for every category.
    pub const fn all(action: Action) -> Self {
        Self {
            ai_training: action,
            ai_search: action,
            ai_assistant: action,
            seo: action,
            security_scanner: action,
            http_library: action,
            headless_browser: action,
            search_engine: action,
            unknown: action,
        }
    }

    /// These actions, but this one for this category.
    #[must_use]
    pub const fn with(mut self, category: Category, action: Action) -> Self {
        match category {
            Category::AiTraining => self.ai_training = action,
            Category::AiSearch => self.ai_search = action,
            Category::AiAssistant => self.ai_assistant = action,
            Category::Seo => self.seo = action,
            Category::SecurityScanner => self.security_scanner = action,
            Category::HttpLibrary => self.http_library = action,
            Category::HeadlessBrowser => self.headless_browser = action,
            Category::SearchEngine => self.search_engine = action,
            Category::Unknown => self.unknown = action,
        }
        self
    }

    /// What is done with this category.
    pub const fn of(&self, category: Category) -> Action {
        match category {
            Category::AiTraining => self.ai_training,
            Category::AiSearch => self.ai_search,
            Category::AiAssistant => self.ai_assistant,
            Category::Seo => self.seo,
            Category::SecurityScanner => self.security_scanner,
            Category::HttpLibrary => self.http_library,
            Category::HeadlessBrowser => self.headless_browser,
            Category::SearchEngine => self.search_engine,
            Category::Unknown => self.unknown,
        }
    }
}

/// What is done where a policy writes nothing.
///
/// Libraries pass: they also carry the requests of native apps. So does what is merely unknown.
impl Default for Actions {
    fn default() -> Self {
        Self::all(Action::Block)
            .with(Category::HttpLibrary, Action::Allow)
            .with(Category::Unknown, Action::Allow)
            .with(Category::SearchEngine, Action::Verify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_a_word_of_its_own() {
        for category in Category::ALL {
            assert_eq!(Category::from_word(category.word()), Some(category));
        }
        assert_eq!(Category::from_word("AI-Training"), None);
    }

    #[test]
    fn one_category_is_changed_and_the_others_are_not() {
        for changed in Category::ALL {
            let actions = Actions::all(Action::Allow).with(changed, Action::Tag);
            for category in Category::ALL {
                let expected = if category == changed {
                    Action::Tag
                } else {
                    Action::Allow
                };
                assert_eq!(actions.of(category), expected);
            }
        }
    }

    #[test]
    fn what_a_policy_leaves_out_is_as_the_contract_says() {
        let usual = Actions::default();
        assert_eq!(usual.of(Category::AiTraining), Action::Block);
        assert_eq!(usual.of(Category::HeadlessBrowser), Action::Block);
        assert_eq!(usual.of(Category::HttpLibrary), Action::Allow);
        assert_eq!(usual.of(Category::SearchEngine), Action::Verify);
        assert_eq!(usual.of(Category::Unknown), Action::Allow);
    }
}
