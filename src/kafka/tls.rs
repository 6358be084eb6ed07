//! TLS at the door: a certificate and its key, from files that may be renewed while it runs.

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};

/// How long a handshake may take.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of a file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificate and key are, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Which of the two files is wrong, how, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Whether it is the key's.
    pub is_key: bool,
    /// Whether it is only that this user may not read it.
    pub is_denied: bool,
    /// The file.
    pub file: PathBuf,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl std::error::Error for Wrong {}

/// Shakes hands as the files last read say.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum NoHandshake {
    /// It did not speak TLS, or not in a way that is spoken here.
    Failed(std::io::Error),
    /// It took too long.
    Late,
}

impl fmt::Display for NoHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Late => f.write_str("it took too long"),
        }
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn open(files: &Files) -> Result<Self, Wrong> {
        let config = read(files)?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(config))))
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// When one of them cannot be used; what was read before stays in force.
    pub fn renew(&self, files: &Files) -> Result<(), Wrong> {
        self.0.store(Arc::new(read(files)?));
        Ok(())
    }

    /// Shakes hands with who has connected.
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, NoHandshake>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.accept_within(HANDSHAKE_WITHIN, stream).await
    }

    async fn accept_within<S>(
        &self,
        within: Duration,
        stream: S,
    ) -> Result<TlsStream<S>, NoHandshake>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        match timeout(within, acceptor.accept(stream)).await {
            Ok(shaken) => shaken.map_err(NoHandshake::Failed),
            Err(_) => Err(NoHandshake::Late),
        }
    }
}

fn read(files: &Files) -> Result<ServerConfig, Wrong> {
    let of_cert = |what: String| wrong(false, &files.cert, what);
    let of_key = |what: String| wrong(true, &files.key, what);
    let chain = bytes_of(false, &files.cert)?;
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| of_cert(format!("no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(of_cert(
            "holds no certificate (it must be PEM: `-----BEGIN CERTIFICATE-----`, the own one first)".to_owned(),
        ));
    }
    let key = bytes_of(true, &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
        let has = |words: &[u8]| key.windows(words.len()).any(|part| part == words);
        let is_locked = has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED");
        let is_missing = matches!(error, pem::Error::NoItemsFound);
        of_key(match (is_missing, is_locked) {
            (true, true) => {
                "the key is locked with a password (`openssl pkey -in … -out …` writes it without)"
                    .to_owned()
            }
            (true, false) => {
                "holds no private key (it must be PEM: `-----BEGIN PRIVATE KEY-----`)".to_owned()
            }
            (false, _) => format!("no PEM: {error}"),
        })
    })?;
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| of_cert(error.to_string()))?;
    let config = versions.with_no_client_auth().with_single_cert(chain, key);
    config.map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            let cert = files.cert.display();
            of_key(format!(
                "is not the key of the certificate in {cert} (renew both)"
            ))
        } else if let rustls::Error::InvalidCertificate(error) = error {
            of_cert(format!("the certificate cannot be used: {error}"))
        } else {
            let kinds = "RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519";
            of_key(format!("the key cannot be used: {error} (use {kinds})"))
        }
    })
}

fn bytes_of(is_key: bool, file: &Path) -> Result<Vec<u8>, Wrong> {
    let unreadable = |error: std::io::Error| Wrong {
        is_denied: error.kind() == ErrorKind::PermissionDenied,
        ..wrong(is_key, file, format!("cannot be read: {error}"))
    };
    let about = fs::metadata(file).map_err(unreadable)?;
    // A pipe that nobody writes would be waited for.
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        let what = "cannot be read: not a regular file of 1 MiB at most";
        return Err(wrong(is_key, file, what.to_owned()));
    }
    fs::read(file).map_err(unreadable)
}

fn wrong(is_key: bool, file: &Path, what: String) -> Wrong {
    Wrong {
        is_key,
        is_denied: false,
        file: file.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{
        TlsConnector,
        rustls::{
            ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
            pki_types::ServerName,
        },
    };

    use super::*;

    struct Pair {
        dir: tempfile::TempDir,
    }

    impl Pair {
        fn new(name: &str) -> Self {
            let pair = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            pair.make(name);
            pair
        }

        fn make(&self, name: &str) {
            let files = self.files();
            let made = Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                ])
                .args(["-nodes", "-days", "2", "-subj", "/CN=wardent", "-addext"])
                .arg(format!("subjectAltName=DNS:{name}"))
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(&files.key)
                .arg("-out")
                .arg(&files.cert)
                .output()
                .unwrap();
            assert!(made.status.success(), "{made:?}");
        }

        fn files(&self) -> Files {
            Files {
                cert: self.dir.path().join("cert.pem"),
                key: self.dir.path().join("key.pem"),
            }
        }

        fn client(&self, version: &'static SupportedProtocolVersion) -> TlsConnector {
            let mut roots = RootCertStore::empty();
            let cert = CertificateDer::from_pem_file(self.files().cert).unwrap();
            roots.add(cert).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        }
    }

    async fn talk(
        tls: &Tls,
        client: TlsConnector,
        name: &'static str,
    ) -> Result<ProtocolVersion, String> {
        let (here, there) = tokio::io::duplex(16 * 1024);
        let served = async {
            let mut stream = tls
                .accept(there)
                .await
                .map_err(|error| format!("{error:?}"))?;
            stream
                .write_all(b"hello")
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(stream.get_ref().1.protocol_version())
        };
        let asked = async {
            let name = ServerName::try_from(name).unwrap();
            let mut stream = client
                .connect(name, here)
                .await
                .map_err(|error| error.to_string())?;
            let mut said = [0; 5];
            stream
                .read_exact(&mut said)
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(said)
        };
        let (served, asked) = tokio::join!(served, asked);
        assert_eq!(&asked?, b"hello");
        Ok(served?.unwrap())
    }

    #[tokio::test]
    async fn hands_are_shaken_in_both_versions() {
        let pair = Pair::new("one.test");
        let tls = Tls::open(&pair.files()).unwrap();
        for (version, spoken) in [
            (&TLS12, ProtocolVersion::TLSv1_2),
            (&TLS13, ProtocolVersion::TLSv1_3),
        ] {
            assert_eq!(
                talk(&tls, pair.client(version), "one.test").await,
                Ok(spoken)
            );
        }
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let pair = Pair::new("one.test");
        let tls = Tls::open(&pair.files()).unwrap();
        pair.make("two.test");
        tls.renew(&pair.files()).unwrap();
        talk(&tls, pair.client(&TLS13), "two.test").await.unwrap();
        let client = pair.client(&TLS13);
        fs::write(pair.files().cert, "nothing").unwrap();
        tls.renew(&pair.files()).unwrap_err();
        talk(&tls, client, "two.test").await.unwrap();
    }

    #[tokio::test]
    async fn who_speaks_no_tls_is_no_connection() {
        let pair = Pair::new("one.test");
        let tls = Tls::open(&pair.files()).unwrap();
        let (mut here, there) = tokio::io::duplex(1024);
        here.write_all(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x07\xff\xff")
            .await
            .unwrap();
        assert!(matches!(
            tls.accept(there).await,
            Err(NoHandshake::Failed(_))
        ));
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let pair = Pair::new("one.test");
        let tls = Tls::open(&pair.files()).unwrap();
        let (_here, there) = tokio::io::duplex(1024);
        let shaken = tls.accept_within(Duration::from_millis(1), there).await;
        assert!(matches!(shaken, Err(NoHandshake::Late)));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_by_its_name() {
        let pair = Pair::new("one.test");
        let (other, files) = (Pair::new("two.test"), pair.files());
        let told = |files: Files| Tls::open(&files).unwrap_err().to_string();
        let missing = Files {
            cert: "/nowhere/cert.pem".into(),
            ..files.clone()
        };
        assert!(told(missing).starts_with("/nowhere/cert.pem: cannot be read: No such file"));
        let swapped = Files {
            cert: files.key.clone(),
            key: files.cert.clone(),
        };
        assert!(told(swapped).contains("key.pem: holds no certificate"));
        let no_key = Files {
            key: files.cert.clone(),
            ..files.clone()
        };
        assert!(told(no_key).contains("cert.pem: holds no private key"));
        let stranger = Files {
            key: other.files().key,
            ..files.clone()
        };
        assert!(told(stranger).contains("is not the key of the certificate in"));
        let locked = pair.dir.path().join("locked.pem");
        let made = Command::new("openssl")
            .args(["pkey", "-aes256", "-passout", "pass:x", "-in"])
            .arg(&files.key)
            .arg("-out")
            .arg(&locked)
            .status();
        assert!(made.unwrap().success());
        let locked = Files {
            key: locked,
            ..files
        };
        assert!(told(locked).contains("locked with a password"));
    }
}
