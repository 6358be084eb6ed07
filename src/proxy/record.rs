//! What is known of one request, gathered while it lives and told once when it ends.

use std::{cell::Cell, net::IpAddr, rc::Rc};

use super::{
    body::Framing,
    head::RequestHead,
    names::Name,
    respond::Failure,
    socket::Side,
    trace::{Told, Trace},
    worker::{UnderWay, Worker},
};
use crate::{
    base::id::RequestId,
    bots::{Action, Standing},
    client::{Claim, Client, Peer},
    event::{
        access::{Access, SeenBot, Verdict},
        privacy::{AddressText, Privacy},
    },
    guard::{
        blame::Blame,
        bots::Seen,
        chain::Judgement,
        limit::Limits,
        policy::Rules,
        verdict::{Reason, Refusal},
    },
    limit::Spent,
    owner::Cause,
    sink::lane::Lane,
    telemetry::trace_context::TraceContext,
};

/// What a client has got of an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// No byte of it.
    Nothing,
    /// A part, and a length or chunks that tell where it ends.
    WithItsEndKnown,
    /// A part of what only the connection's end will end.
    UntilClose,
}

/// An answer of the upstream's on its way to the client.
#[derive(Debug, Clone, Copy)]
struct Answer {
    /// Bytes sent on the connection before its head.
    sent_before: u64,
    end_is_known: bool,
}

/// The story of one request. Dropping it tells it: to the metrics and as an event, exactly once,
/// whether the request was answered, broke off, or its task was ended.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    worker: &'a Rc<Worker>,
    head: &'a RequestHead,
    client_side: &'a Side,
    peer: &'a Peer,
    pub(crate) id: RequestId,
    began_ns: u64,
    sent_before: u64,
    rules: Cell<Option<&'a Rules>>,
    pub(crate) client: Cell<Option<Client>>,
    is_proven: Cell<bool>,
    is_traffic: Cell<bool>,
    may_be_blamed: Cell<bool>,
    observed: Cell<Option<Refusal>>,
    bot: Cell<Option<Seen>>,
    spent: Cell<Option<Spent>>,
    status: Cell<u16>,
    verdict: Cell<Verdict>,
    refusal: Cell<Option<Refusal>>,
    body_bytes_in: Cell<u64>,
    body_ended_ns: Cell<Option<u64>>,
    server: Cell<Option<usize>>,
    connected_ns: Cell<Option<u64>>,
    answered_ns: Cell<Option<u64>>,
    answer: Cell<Option<Answer>>,
    trace: Cell<Option<Trace>>,
    _under_way: UnderWay,
}

impl<'a> Record<'a> {
    /// Begins with a request whose head has just become whole, or turned out to be none.
    pub(crate) fn begin(
        worker: &'a Rc<Worker>,
        client_side: &'a Side,
        peer: &'a Peer,
        head: &'a RequestHead,
    ) -> Self {
        let began_ns = worker.shared.clock.monotonic_ns();
        let id = worker.ids.borrow_mut().next(worker.unix_ms(began_ns));
        Self {
            worker,
            head,
            client_side,
            peer,
            id,
            began_ns,
            sent_before: client_side.sent(),
            rules: Cell::new(None),
            client: Cell::new(None),
            is_proven: Cell::new(false),
            is_traffic: Cell::new(true),
            may_be_blamed: Cell::new(false),
            observed: Cell::new(None),
            bot: Cell::new(None),
            spent: Cell::new(None),
            status: Cell::new(0),
            verdict: Cell::new(Verdict::Aborted),
            refusal: Cell::new(None),
            body_bytes_in: Cell::new(0),
            body_ended_ns: Cell::new(None),
            server: Cell::new(None),
            connected_ns: Cell::new(None),
            answered_ns: Cell::new(None),
            answer: Cell::new(None),
            trace: Cell::new(None),
            _under_way: worker.request_begins(),
        }
    }

    /// When the request arrived, in milliseconds since 1970.
    pub(crate) fn arrived_unix_ms(&self) -> u64 {
        self.worker.unix_ms(self.began_ns)
    }

    /// Nothing will be told of this request.
    pub(crate) fn is_no_traffic(&self) {
        self.is_traffic.set(false);
    }

    /// When the request arrived, on the monotonic clock.
    pub(crate) fn began_ns(&self) -> u64 {
        self.began_ns
    }

    /// Notes what the guards found.
    pub(crate) fn judged(&self, judgement: &Judgement<'a>) {
        self.rules.set(Some(judgement.rules));
        self.client.set(judgement.client);
        self.is_proven.set(judgement.is_proven);
        self.may_be_blamed.set(judgement.may_be_blamed);
        self.observed.set(judgement.observed);
        self.bot.set(judgement.bot);
        self.spent.set(judgement.spent);
    }

    /// Decides which trace the judged request belongs to, where traces are collected.
    pub(crate) fn traced(&self) {
        let Some(tracer) = &self.worker.shared.tracer else {
            return;
        };
        let trusts = self.client.get().is_some_and(|client| client.peer_trusted);
        let said = || {
            let mut values = self.head.values(Name::TraceParent);
            let first = TraceContext::read(values.next()?);
            first.filter(|_| values.next().is_none())
        };
        let said = trusts.then(said).flatten();
        let mut trace = tracer.begin(said, &self.worker.dice);
        if let Some(trace) = trace.as_mut().filter(|trace| trace.upstream.is_sampled()) {
            trace.judged_ns = self.worker.shared.clock.monotonic_ns();
        }
        self.trace.set(trace);
    }

    /// The trace that the upstream is to be asked in, where Wardent takes part in it.
    pub(crate) fn trace(&self) -> Option<Trace> {
        self.trace.get()
    }

    /// A server is picked, and a connection to it wanted.
    pub(crate) fn asks_upstream(&self) {
        if let Some(mut trace) = self.trace.get().filter(|trace| trace.upstream.is_sampled()) {
            trace.asked_ns = self.worker.shared.clock.monotonic_ns();
            self.trace.set(Some(trace));
        }
    }

    /// Holds the request against its client, if that may be blamed: tells the owner of bans.
    pub(crate) fn blame(&self, cause: Cause, points: u32) {
        let Some(rules) = self.rules.get().filter(|_| points > 0) else {
            return;
        };
        let blame = Blame {
            rules,
            client: self.client.get(),
            may_be_blamed: self.may_be_blamed.get(),
            is_cross_site: self.head.is_cross_site(),
            request: self.id,
            unix_ms: self.arrived_unix_ms(),
            path: self.head.path(),
        };
        if let Some(violation) = blame.violation(cause, points) {
            self.worker.shared.facts.tell(violation);
        }
    }

    /// The bot that sent it, if the application is to be told.
    pub(crate) fn tag(&self) -> Option<Seen> {
        self.bot.get().filter(|bot| bot.action == Action::Tag)
    }

    /// What the client's limits leave it, where they are enforced.
    pub(crate) fn limits(&self) -> Option<(&'a Limits, Spent)> {
        let rules = self.rules.get().filter(|rules| rules.enforces)?;
        Some((&rules.limits, self.spent.get()?))
    }

    pub(crate) fn connected(&self, server: usize) {
        self.server.set(Some(server));
        let now_ns = self.worker.shared.clock.monotonic_ns();
        self.connected_ns.set(Some(now_ns));
    }

    /// The head of the upstream's answer is here, and what is sent from now on is that answer.
    /// `end_is_known` says whether a client can tell a part of it from the whole.
    pub(crate) fn answered(&self, status: u16, end_is_known: bool) {
        self.status.set(status);
        let now_ns = self.worker.shared.clock.monotonic_ns();
        self.answered_ns.set(Some(now_ns));
        if let Some(rules) = self.rules.get() {
            self.blame(Cause::Penalized, rules.penalty(status));
        }
        self.answer.set(Some(Answer {
            sent_before: self.client_side.sent(),
            end_is_known,
        }));
    }

    /// How much of the upstream's answer the client has been sent.
    pub(crate) fn begun(&self) -> Begun {
        match self.answer.get() {
            Some(answer) if self.client_side.sent() > answer.sent_before => {
                match answer.end_is_known {
                    true => Begun::WithItsEndKnown,
                    false => Begun::UntilClose,
                }
            }
            Some(_) | None => Begun::Nothing,
        }
    }

    pub(crate) fn passed(&self) {
        self.verdict.set(Verdict::Passed);
    }

    pub(crate) fn received(&self, body_bytes: u64) {
        self.body_bytes_in.set(body_bytes);
    }

    /// The request's body has come whole.
    pub(crate) fn body_ended(&self) {
        if self.head.framing != Framing::None && self.body_ended_ns.get().is_none() {
            let now_ns = self.worker.shared.clock.monotonic_ns();
            self.body_ended_ns.set(Some(now_ns));
        }
    }

    /// The request came to no good end; the answer, if any, is that of `failure`.
    pub(crate) fn failed(&self, failure: Failure) {
        let refusal = failure.refusal();
        self.refusal.set(refusal);
        if let (Some(refusal), Begun::Nothing) = (refusal, self.begun()) {
            self.status.set(refusal.status);
        }
        self.verdict.set(match failure {
            Failure::ClientGone => Verdict::Aborted,
            Failure::Refused(_) | Failure::BadBody(_) | Failure::ClientLate(_) => Verdict::Refused,
            Failure::Unreachable
            | Failure::UpstreamLate(_)
            | Failure::UpstreamBroken(_)
            | Failure::Unavailable
            | Failure::Overloaded(_)
            | Failure::Internal => Verdict::Failed,
        });
        if refusal.is_some_and(|refusal| refusal.reason == Reason::Internal) {
            self.worker.metrics.panics.add(1);
        }
    }

    fn since_us(&self, moment_ns: u64) -> u64 {
        moment_ns.saturating_sub(self.began_ns) / 1_000
    }

    /// What is shown of the peer: all of it where it is one of the operator's own.
    fn shown_peer(&self, privacy: &Privacy) -> Option<AddressText> {
        let ip = self.peer.ip()?;
        let is_whole = privacy.is_full() || self.peer_is_trusted();
        Some(if is_whole {
            AddressText::whole(ip)
        } else {
            privacy.of(ip)
        })
    }

    /// The hop before the peer, where the peer was asked for it.
    fn edge(&self) -> Option<IpAddr> {
        self.worker.shared.settings.names.edge.as_ref()?;
        let claimed = Claim::of(self.head.values(Name::Edge)).single_address()?;
        self.peer_is_trusted().then_some(claimed)
    }

    fn peer_is_trusted(&self) -> bool {
        match self.client.get() {
            Some(client) => client.peer_trusted,
            None => {
                let policy = self.worker.shared.policy.load();
                policy.trust.trusted.trusts(self.peer)
            }
        }
    }

    /// Whether what Cloudflare says of the client may be believed.
    fn is_proven_by_header(&self) -> bool {
        let by_header = |client: Client| client.by_header;
        self.is_proven.get() && self.client.get().is_some_and(by_header)
    }

    /// The name of the limit that `refusal` is about.
    fn rule_of(&self, refusal: Refusal) -> Option<&'a str> {
        let spent = self.spent.get()?;
        let is_limit = refusal.reason == Reason::RateLimited;
        is_limit.then(|| self.rules.get()?.limits.name_of(&spent))?
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.is_traffic.get() {
            return;
        }
        let ended_ns = self.worker.shared.clock.monotonic_ns();
        let total_us = self.since_us(ended_ns);
        let refusal = self.refusal.get();
        let bytes_out = self.client_side.sent() - self.sent_before;
        let metrics = &self.worker.metrics;
        metrics.finished(
            self.verdict.get(),
            refusal.map(|refusal| refusal.reason),
            self.status.get(),
            total_us,
        );
        if let Some(rules) = self.rules.get() {
            let tally = &rules.tally;
            tally.finished(self.worker.nth, self.verdict.get(), total_us);
        }
        let observed = self.observed.get().filter(|_| refusal.is_none());
        if let Some(would_be) = observed {
            metrics.observed(would_be.reason);
        }
        metrics.body_bytes_in.add(self.body_bytes_in.get());
        metrics.bytes_out.add(bytes_out);
        if let Some(bot) = self.bot.get() {
            metrics.bot(bot.category);
        }
        self.tell(
            total_us,
            bytes_out,
            refusal.or(observed),
            observed.is_some(),
        );
        if let Some(trace) = self.trace.get().filter(|trace| trace.upstream.is_sampled()) {
            let said = refusal.or(observed);
            self.tell_trace(trace, ended_ns, bytes_out, said, observed.is_some());
        }
    }
}

impl Record<'_> {
    /// Tells the event. `said` is why it was refused or failed, or would have been.
    fn tell(&self, total_us: u64, bytes_out: u64, said: Option<Refusal>, is_observed: bool) {
        let mut outlets = self.worker.outlets.borrow_mut();
        if !outlets.is_open() {
            return;
        }
        let shared = &self.worker.shared;
        let servers = shared.upstream.servers();
        let privacy = &shared.privacy;
        let client = self.client.get().as_ref().and_then(Client::ip);
        let client = client.map(|ip| privacy.of(ip));
        let peer = self.shown_peer(privacy);
        let edge = self.edge().map(|ip| privacy.of(ip));
        let bot = self.bot.get();
        let is_proven_by_header = self.is_proven_by_header();
        let access = Access {
            place: outlets.lane.as_ref().map(Lane::next),
            arrived_unix_ms: self.arrived_unix_ms(),
            id: self.id.as_bytes(),
            client: client.as_ref(),
            is_proven: self.is_proven.get(),
            peer: peer.as_ref(),
            edge: edge.as_ref(),
            method: self.head.method(),
            host: self.head.host(),
            path: self.head.path(),
            is_cross_site: self.head.is_cross_site(),
            status: self.status.get(),
            verdict: self.verdict.get(),
            reason: said.map(|refusal| refusal.reason.name()),
            is_observed,
            why: said.map(|refusal| refusal.why),
            rule: said.and_then(|refusal| self.rule_of(refusal)),
            route: self.rules.get().map_or("", |rules| &rules.route),
            body_bytes_in: self.body_bytes_in.get(),
            bytes_out,
            total_us,
            body_us: self.body_ended_ns.get().map(|ns| self.since_us(ns)),
            connected_us: self.connected_ns.get().map(|ns| self.since_us(ns)),
            answered_us: self.answered_ns.get().map(|ns| self.since_us(ns)),
            upstream: self
                .server
                .get()
                .and_then(|place| servers.get(place))
                .map(|server| server.name()),
            user_agent: self.head.user_agent(),
            bot: bot.as_ref().map(|bot| SeenBot {
                name: bot.name.as_bytes(),
                category: bot.category.word(),
                standing: bot.standing.map(Standing::name),
            }),
            country: self.head.country().filter(|_| is_proven_by_header),
            ray: self.head.ray().filter(|_| is_proven_by_header),
        };
        outlets.tell(&access, &self.worker.stamps);
    }
}

impl Record<'_> {
    /// Tells the collector of traces, or its queue's counter.
    fn tell_trace(
        &self,
        trace: Trace,
        ended_ns: u64,
        bytes_out: u64,
        said: Option<Refusal>,
        is_observed: bool,
    ) {
        let shared = &self.worker.shared;
        let Some(tracer) = &shared.tracer else {
            return;
        };
        let client = self.client.get().as_ref().and_then(Client::ip);
        let client = client.map(|ip| shared.privacy.of(ip));
        tracer.tell(Box::new(Told {
            trace,
            unix_ahead_ns: self.worker.unix_ahead_ns(),
            began_ns: self.began_ns,
            connected_ns: self.connected_ns.get(),
            answered_ns: self.answered_ns.get(),
            ended_ns,
            id: self.id,
            method: Told::text(self.head.method()),
            host: Told::text(self.head.host()),
            path: Told::text(self.head.path()),
            user_agent: Told::text(self.head.user_agent()),
            client: client.map(|text| Told::text(text.as_bytes())),
            route: self.rules.get().map_or("", |rules| &rules.route).to_owned(),
            server: self.server.get(),
            status: self.status.get(),
            verdict: self.verdict.get(),
            said: said.map(|refusal| (refusal.reason.name(), refusal.why)),
            is_observed,
            body_bytes_in: self.body_bytes_in.get(),
            bytes_out,
        }));
    }
}
