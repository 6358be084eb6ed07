//! What is held against a client, and what is not.

use super::policy::Rules;
use crate::{
    base::id::RequestId,
    client::{Client, ClientKey},
    owner::{Cause, Excerpt, Violation},
};

/// One request, as far as its client may be blamed for it.
#[derive(Debug, Clone, Copy)]
pub struct Blame<'a> {
    /// The rules it was judged by.
    pub rules: &'a Rules,
    /// Whose request it is.
    pub client: Option<Client>,
    /// Whether that client may be blamed at all.
    pub may_be_blamed: bool,
    /// Whether a browser says that another site made it send this.
    pub is_cross_site: bool,
    /// The id of the decision.
    pub request: RequestId,
    /// When it came, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What it asked for.
    pub path: &'a [u8],
}

impl Blame<'_> {
    /// What the owner of bans is told; none where nobody is to blame.
    ///
    /// Where a route only observes, it counts towards no ban that holds, also when the request is
    /// refused all the same.
    pub fn violation(&self, cause: Cause, points: u32) -> Option<Violation> {
        let client: ClientKey = self.client.as_ref()?.key()?;
        let counts = self.may_be_blamed && counts(cause, points, self.is_cross_site);
        counts.then(|| Violation {
            client,
            cause,
            points,
            enforced: self.rules.enforces,
            request: self.request,
            unix_ms: self.unix_ms,
            path: Excerpt::of(self.path),
        })
    }
}

/// Whether a violation of a client that may be blamed counts.
pub fn counts(cause: Cause, points: u32, is_cross_site: bool) -> bool {
    // What another site made a browser ask for is not the fault of who sits before it.
    let by_another_site = matches!(cause, Cause::Trap | Cause::Penalized) && is_cross_site;
    points > 0 && !by_another_site
}
