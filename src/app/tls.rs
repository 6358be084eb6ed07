//! The certificates of the listeners, read at the start and again by a reload.

use super::StartError;
use crate::{
    config::{settings, wardent, wardent::Document},
    kafka::tls::{Files, Tls},
};

/// The certificates that are shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Certificates {
    /// To Kafka's clients.
    log: Option<Renewed>,
    /// Over the admin listener.
    admin: Option<Renewed>,
}

impl Certificates {
    /// Reads the files of `log.tls` and `admin.tls`, where there are any and somebody listens.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(super) fn open(document: &Document) -> Result<Self, StartError> {
        let Document { log, admin, .. } = document;
        let log_tls = log.tls.as_ref().filter(|_| log.listen.is_some());
        let admin_tls = admin.tls.as_ref().filter(|_| admin.listen.is_some());
        let open = |key, tls: Option<&_>| tls.map(|tls| Renewed::open(key, tls)).transpose();
        Ok(Self {
            log: open("log.tls", log_tls)?,
            admin: open("admin.tls", admin_tls)?,
        })
    }

    /// What shows the one of the Kafka listener.
    pub(super) fn of_log(&self) -> Option<Tls> {
        self.log.as_ref().map(|renewed| renewed.tls.clone())
    }

    /// What shows the one of the admin listener.
    pub(super) fn of_admin(&self) -> Option<Tls> {
        self.admin.as_ref().map(|renewed| renewed.tls.clone())
    }

    /// Reads the files again. What keeps some from being used is told, and those before stay in force.
    pub(super) fn renew(&self) -> Vec<String> {
        let all = self.log.iter().chain(&self.admin);
        all.filter_map(Renewed::renew).collect()
    }
}

/// A certificate and where it is renewed from.
#[derive(Debug, Clone)]
pub(super) struct Renewed {
    key: &'static str,
    /// Shows the one that is in force.
    tls: Tls,
    files: Files,
}

impl Renewed {
    fn open(key: &'static str, tls: &wardent::Tls) -> Result<Self, StartError> {
        let files = settings::tls(tls);
        let tls =
            Tls::open(&files).map_err(|wrong| StartError::Secrets(format!("{key}: {wrong}")))?;
        Ok(Self { key, tls, files })
    }

    fn renew(&self) -> Option<String> {
        let wrong = self.tls.renew(&self.files).err()?;
        let key = self.key;
        Some(format!(
            "{key}: {wrong}; the certificate before stays in force"
        ))
    }
}
