//! One marked request, and the answer's head: over TCP, TLS or a unix socket, with deadlines.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 100;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Tcp(SocketAddr),
    /// With the name that is asked for. The certificate is not looked at: what is sent is no secret.
    Tls(SocketAddr, String),
    Unix(PathBuf),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Tls(address, name) => write!(f, "{address} ({name}, TLS)"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The first address of a host.
pub(super) fn resolved(host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut found = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    found
        .next()
        .ok_or_else(|| format!("{host}: has no address"))
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    /// Whether it has a body, as far as was looked.
    pub(super) has_body: bool,
}

impl Answer {
    /// One that says nothing more.
    #[cfg(test)]
    pub(super) fn of(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            has_body: false,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It cannot be reached, or broke off.
    Failed(String),
    /// It did not answer in time: it may wait for the body.
    Late,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Late => f.write_str("no answer in time"),
        }
    }
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Sends `request` as it is, and reads the answer to it.
pub(super) fn ask(to: &To, request: &str, patience: Duration) -> Result<Answer, Silence> {
    match to {
        To::Tcp(address) => exchange(tcp(*address, patience)?, request),
        To::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, request)
        }
        To::Tls(address, name) => {
            let in_words = |error: TlsError| Silence::Failed(error.to_string());
            let provider = Arc::new(ring::default_provider());
            let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(in_words)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth();
            let name = ServerName::try_from(name.clone())
                .map_err(|error| Silence::Failed(error.to_string()))?;
            let connection = ClientConnection::new(Arc::new(config), name).map_err(in_words)?;
            let stream = tcp(*address, patience)?;
            exchange(StreamOwned::new(connection, stream), request)
        }
    }
}

fn tcp(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<Answer, Silence> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        if let Some((answer, head, length)) = read(&bytes)? {
            let body = bytes.len() - head;
            // Enough to know whether there is one.
            if body > 0 || length == Some(0) {
                let has_body = body > 0;
                return Ok(Answer { has_body, ..answer });
            }
        }
        let is_whole = |bytes: &[u8]| matches!(read(bytes), Ok(Some(_)));
        let more = match stream.read(&mut chunk) {
            // The body may be late, or end with the connection.
            Ok(0) | Err(_) if is_whole(&bytes) => {
                return read(&bytes)?
                    .map(|(answer, ..)| answer)
                    .ok_or(Silence::Late);
            }
            Ok(0) => return Err(Silence::Failed("the connection was closed".to_owned())),
            Ok(more) => more,
            Err(error) => return Err(error.into()),
        };
        bytes.extend_from_slice(chunk.get(..more).unwrap_or_default());
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Silence::Failed("the answer's head is too long".to_owned()));
        }
    }
}

/// The head of an answer, its bytes, and its body's length where it says so; none where more must come.
fn read(bytes: &[u8]) -> Result<Option<(Answer, usize, Option<usize>)>, Silence> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(bytes);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Silence::Failed(format!("no HTTP answer: {error}"))),
    };
    let status = head.code.unwrap_or_default();
    // 100, 103: the answer itself comes behind.
    if (100..200).contains(&status) && status != 101 {
        return read(bytes.get(length..).unwrap_or_default())
            .map(|rest| rest.map(|(answer, own, body)| (answer, length + own, body)));
    }
    let headers = head.headers.iter().map(|field| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        (field.name.to_owned(), value)
    });
    let answer = Answer {
        status,
        headers: headers.collect(),
        has_body: false,
    };
    let body = answer
        .header("content-length")
        .and_then(|text| text.parse().ok());
    Ok(Some((answer, length, body)))
}

/// Takes any certificate: whose it is says nothing about the way of a request through the machine.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_head() {
        let text = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 429 x\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n";
        let (answer, head, length) = read(text).unwrap().unwrap();
        assert_eq!((answer.status, head, length), (429, text.len(), Some(2)));
        assert_eq!(answer.header("retry-after"), Some("3"));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: b").unwrap(), None);
        assert!(read(b"SSH-2.0\r\n").is_err());
    }

    #[test]
    fn nobody_there_is_said() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let silence = ask(&To::Tcp(address), "GET / HTTP/1.1\r\n\r\n", CONNECT_WITHIN).unwrap_err();
        assert!(matches!(silence, Silence::Failed(_)), "{silence}");
    }
}
