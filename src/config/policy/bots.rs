//! What a policy says about bots.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::config::words::{self, Map, vocabulary};

vocabulary! {
    /// A kind of client that is no person.
    BotCategory {
        /// Collects text to train models.
        AiTraining = "ai-training",
        /// Feeds an answer engine.
        AiSearch = "ai-search",
        /// Fetches a page because a person asked an assistant.
        AiAssistant = "ai-assistant",
        /// Measures rankings and links.
        Seo = "seo",
        /// Looks for holes.
        SecurityScanner = "security-scanner",
        /// A programming library.
        HttpLibrary = "http-library",
        /// A browser that nobody looks at.
        HeadlessBrowser = "headless-browser",
        /// Feeds a search engine.
        SearchEngine = "search-engine",
        /// Says that it is a bot, and is not known.
        Unknown = "unknown",
    }
}

impl BotCategory {
    /// What is done with it where nothing is written.
    pub fn usual_action(self) -> BotAction {
        match self {
            Self::AiTraining
            | Self::AiSearch
            | Self::AiAssistant
            | Self::Seo
            | Self::SecurityScanner
            | Self::HeadlessBrowser => BotAction::Block,
            Self::HttpLibrary | Self::Unknown => BotAction::Allow,
            Self::SearchEngine => BotAction::Verify,
        }
    }
}

vocabulary! {
    /// What is done with a bot.
    BotAction {
        /// It passes.
        Allow = "allow",
        /// It is refused.
        Block = "block",
        /// It passes, and the application is told what it is.
        Tag = "tag",
        /// It passes within a limit of its own.
        Limit = "limit",
        /// It passes if its address belongs to whom it names.
        Verify = "verify",
    }
}

/// What is done with each category; what is not written is as usual.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BotActions(BTreeMap<BotCategory, BotAction>);

impl BotActions {
    /// What is done with this category.
    pub fn of(&self, category: BotCategory) -> BotAction {
        let written = self.0.get(&category).copied();
        written.unwrap_or_else(|| category.usual_action())
    }

    /// These actions, with those of `other` before them.
    pub(super) fn overlaid(&self, other: &Self) -> Self {
        let mut actions = self.0.clone();
        actions.extend(&other.0);
        Self(actions)
    }
}

/// Whether bots are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BotRule {
    /// They are not.
    Skip,
    /// They are, and this is done with them.
    Act(BotActions),
}

/// `skip`, or a mapping of category to action.
impl<'de> Deserialize<'de> for BotRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let actions: Option<Map<BotCategory, BotAction>> = words::skip_or(deserializer)?;
        Ok(actions.map_or(Self::Skip, |Map(actions)| Self::Act(BotActions(actions))))
    }
}
