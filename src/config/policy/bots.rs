//! What a policy says about bots.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::{
    bots::{Action, Actions, Category},
    config::words::{self, FromWord, Map, choose},
};

impl FromWord for Category {
    const EXPECTED: &'static str = "a category of bots";

    fn from_word(word: &str) -> Result<Self, String> {
        choose(word, &Self::ALL.map(|category| (category.word(), category)))
    }
}

impl FromWord for Action {
    const EXPECTED: &'static str = "what is done with bots";

    fn from_word(word: &str) -> Result<Self, String> {
        choose(word, &Self::ALL.map(|action| (action.word(), action)))
    }
}

/// What is done with a category where nothing is written.
fn usual(category: Category) -> Action {
    match category {
        Category::AiTraining
        | Category::AiSearch
        | Category::AiAssistant
        | Category::Seo
        | Category::SecurityScanner
        | Category::HeadlessBrowser => Action::Block,
        Category::HttpLibrary | Category::Unknown => Action::Allow,
        Category::SearchEngine => Action::Verify,
    }
}

/// What is done with each category; what is not written is as usual.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BotActions(BTreeMap<Category, Action>);

impl BotActions {
    /// What is done with this category.
    pub fn of(&self, category: Category) -> Action {
        let written = self.0.get(&category).copied();
        written.unwrap_or_else(|| usual(category))
    }

    /// What is done with every category.
    pub fn all(&self) -> Actions {
        Category::ALL
            .into_iter()
            .fold(Actions::all(Action::Allow), |actions, category| {
                actions.with(category, self.of(category))
            })
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

impl BotRule {
    /// What is done with every category; none where they are not looked for.
    pub fn actions(&self) -> Option<Actions> {
        match self {
            Self::Skip => None,
            Self::Act(actions) => Some(actions.all()),
        }
    }
}

/// `skip`, or a mapping of category to action.
impl<'de> Deserialize<'de> for BotRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let actions: Option<Map<Category, Action>> = words::skip_or(deserializer)?;
        Ok(actions.map_or(Self::Skip, |Map(actions)| Self::Act(BotActions(actions))))
    }
}
