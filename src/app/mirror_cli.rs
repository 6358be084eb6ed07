//! `wardent mirror`: the process that speaks with the Kafka cluster.

use std::{fs::File, path::Path, process::ExitCode, time::Duration};

use sd_notify::NotifyState;

use super::{
    StartError, cli,
    run::{self, Signals},
};
use crate::{
    base::net::Address,
    config::{
        self,
        secrets::Secrets,
        wardent::{ClusterSasl, ClusterTls, Delivery, Document, Shared},
    },
    mirror::{self, Mirror, Sasl, Settings, Side, Tls},
    telemetry::log::{Log, Look},
};

/// Mirrors until a signal ends it.
pub(super) fn run(config: &Path, look: Option<Look>) -> ExitCode {
    match serve(config, look) {
        Ok(code) => code,
        Err(error) => cli::start_failed(&error),
    }
}

fn serve(config: &Path, look: Option<Look>) -> Result<ExitCode, StartError> {
    let document = config::load_wardent(config)?;
    let settings = settings(&document)?;
    let look = look.unwrap_or_else(|| Look::fitting(&std::io::stderr()));
    let _log = Log::start(document.telemetry.log.word(), look);
    let _only = Only::of(config)?;
    let mut signals = Signals::install()?;
    let mirror = Mirror::start(settings);
    let mirror = mirror.map_err(|failure| StartError::Secrets(format!("cluster: {failure}")))?;
    run::notify(&[NotifyState::Ready]);
    while !signals.ended_within(LOOK) {
        if mirror.is_broken() {
            // Its supervisor starts it again; nothing is lost by that.
            tracing::error!("a thread of the mirror has ended");
            return Ok(ExitCode::FAILURE);
        }
    }
    tracing::info!("ending");
    run::notify(&[NotifyState::Stopping]);
    mirror.end();
    Ok(match mirror.wait() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// How often it is looked whether all threads are there.
const LOOK: Duration = Duration::from_secs(1);

/// One mirror a Wardent: two would send everything twice. Held by a lock on its configuration's file, which
/// ends with the process.
struct Only {
    _locked: File,
}

impl Only {
    fn of(config: &Path) -> Result<Self, StartError> {
        let shown = config.display();
        let file = File::open(config);
        let file = file.map_err(|error| StartError::System(format!("{shown}: {error}")))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _locked: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked(format!(
                "{shown}: another `wardent mirror` runs with this configuration"
            ))),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(StartError::System(format!("{shown}: {error}")))
            }
        }
    }
}

/// What the configuration says, as the mirror goes by it.
fn settings(document: &Document) -> Result<Settings, StartError> {
    let wrong = |what: &str| StartError::Secrets(what.to_owned());
    let cluster = document.cluster.as_ref();
    let cluster = cluster.ok_or_else(|| wrong("wardent.yaml has no `cluster`"))?;
    let kafka = &cluster.kafka;
    let bootstrap: Vec<_> = kafka.bootstrap.iter().map(ToString::to_string).collect();
    Ok(Settings {
        node: cluster.node.clone(),
        local: local(document)?,
        cluster: Side {
            bootstrap: bootstrap.join(","),
            tls: kafka.tls.as_ref().map(tls),
            sasl: sasl("cluster.kafka.sasl.password", kafka.sasl.as_ref())?,
        },
        replication: kafka
            .replication
            .and_then(|count| u16::try_from(count.get()).ok()),
        topics: cluster
            .mirror
            .iter()
            .map(|topic| topic.as_str().to_owned())
            .collect(),
        delivery: match cluster.delivery {
            Delivery::AtLeastOnce => mirror::Delivery::AtLeastOnce,
            Delivery::ExactlyOnce => mirror::Delivery::ExactlyOnce,
        },
        catch_up: cluster.catch_up.per_second,
        shares_bans: cluster.shares(Shared::Bans),
        shares_limits: cluster.shares(Shared::Limits),
        disk_max: document.log.disk_max,
        socket: document.admin.socket.clone(),
    })
}

/// The local listener, under the name that its certificate is for, where it has one.
fn local(document: &Document) -> Result<Side, StartError> {
    let advertised = document.log.advertised.as_ref().map(ToString::to_string);
    let listening = match &document.log.listen {
        Some(Address::Tcp(address)) if address.ip().is_unspecified() => {
            let loopback = match address.is_ipv4() {
                true => "127.0.0.1",
                false => "[::1]",
            };
            Some(format!("{loopback}:{}", address.port()))
        }
        Some(Address::Tcp(address)) => Some(address.to_string()),
        Some(Address::Unix(_)) | None => None,
    };
    let bootstrap = advertised.or(listening).ok_or_else(|| {
        let what = "cluster: `log.listen` names no port that a Kafka client can connect to";
        StartError::Secrets(what.to_owned())
    })?;
    let how = document.cluster.as_ref();
    let how = how.and_then(|cluster| cluster.local.as_ref());
    let login = how.and_then(|how| how.sasl.as_ref());
    if document.log.sasl.is_some() && login.is_none() {
        let what = "cluster: the local listener asks who comes (`log.sasl`), so the mirror needs a user of its own: \
                    `cluster.local.sasl`, made by `wardent log users add`";
        return Err(StartError::Secrets(what.to_owned()));
    }
    Ok(Side {
        bootstrap,
        tls: document.log.tls.as_ref().map(|_| Tls {
            ca: how.and_then(|how| how.ca.clone()),
            ..Tls::default()
        }),
        sasl: sasl("cluster.local.sasl.password", login)?,
    })
}

fn tls(of: &ClusterTls) -> Tls {
    Tls {
        ca: of.ca.clone(),
        cert: of.cert.clone(),
        key: of.key.clone(),
    }
}

/// Reads the password that stands at `what` of the configuration.
fn sasl(what: &str, of: Option<&ClusterSasl>) -> Result<Option<Sasl>, StartError> {
    let Some(of) = of else {
        return Ok(None);
    };
    let found = Secrets::default().get(what, &of.password, |_| Ok(()));
    let found = found.map_err(StartError::Secrets)?;
    let password = std::str::from_utf8(found.value.as_bytes())
        .map_err(|_| StartError::Secrets(format!("{what} is not UTF-8")))?;
    Ok(Some(Sasl {
        mechanism: of.mechanism.word().to_owned(),
        username: of.username.as_str().to_owned(),
        password: password.to_owned().into(),
    }))
}
