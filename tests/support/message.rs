//! A strict reading of RFC 9112: what is not exactly a message is an error.

use std::io::{self, Read};

/// Header or trailer lines in their order, names as they were written, values as Latin-1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// All values under a name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.0.iter();
        lines
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value under a name; two lines of it are a failed test.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "more than one `{name}`: {all:?}");
        all.first().copied()
    }

    /// Whether a line has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether a comma list under this name holds the token.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        let values = self.all(name);
        values
            .iter()
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// The names in lower case, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect()
    }
}

/// The head of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) fields: Fields,
    /// The head's bytes, with the empty line.
    pub(crate) raw: Vec<u8>,
}

/// A request, perhaps not to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Whether the body reached its end as the framing says.
    pub(crate) complete: bool,
    /// Where in the stream the request begins.
    pub(crate) start: usize,
    /// Which connection it came over.
    pub(crate) connection: usize,
}

impl Request {
    /// The value of a header line; two lines of it are a failed test.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.fields.one(name)
    }
}

/// The head of a response.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseHead {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    /// The head's bytes, with the empty line.
    pub(crate) raw: Vec<u8>,
}

/// A response with its body, and what came before it.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: ResponseHead,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    pub(crate) framing: Framing,
    /// The 1xx responses that came first.
    pub(crate) informational: Vec<ResponseHead>,
}

impl Response {
    /// The value of a header line; two lines of it are a failed test.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.fields.one(name)
    }

    /// The nonce the origin echoed.
    pub(crate) fn nonce(&self) -> &str {
        self.header("x-nonce").unwrap_or_default()
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(usize),
    /// At the empty chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Bytes as text, one character each.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// A reader of messages.
#[derive(Debug)]
pub(crate) struct Wire<R> {
    pub(crate) source: R,
    buffer: Vec<u8>,
    at: usize,
    /// How many bytes of the stream have been taken.
    pub(crate) taken: usize,
}

impl<R: Read> Wire<R> {
    /// Reads from a source.
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            at: 0,
            taken: 0,
        }
    }

    /// What has been read and not yet taken.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Reads once more from the source; an end is [`io::ErrorKind::UnexpectedEof`].
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        if self.at > 64 * 1024 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let mut piece = [0; 16 * 1024];
        let len = self.source.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&piece[..len]);
        Ok(())
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.pending()[..len].to_vec();
        self.at += len;
        self.taken += len;
        bytes
    }

    /// Takes exactly so many bytes.
    pub(crate) fn exact(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len.min(1 << 20));
        self.exact_into(len, &mut bytes)?;
        Ok(bytes)
    }

    fn exact_into(&mut self, len: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            if self.pending().is_empty() {
                self.fill()?;
            }
            let piece = self.take(left.min(self.pending().len()));
            left -= piece.len();
            into.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// Takes a line and gives it without its CRLF; no other line end is one.
    pub(crate) fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        let end = loop {
            let pending = self.pending();
            if let Some(at) = pending[searched..].iter().position(|&byte| byte == b'\n') {
                break searched + at;
            }
            searched = pending.len();
            self.fill()?;
        };
        let mut line = self.take(end + 1);
        line.pop();
        if line.pop() != Some(b'\r') {
            return Err(bad("a line that ends in a bare LF"));
        }
        if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return Err(bad("a CR or NUL inside a line"));
        }
        Ok(line)
    }

    /// Takes everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.take(self.pending().len());
        loop {
            match self.fill() {
                Ok(()) => bytes.extend_from_slice(&self.take(self.pending().len())),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(bytes),
                Err(error) => return Err(error),
            }
        }
    }

    fn fields(&mut self, raw: &mut Vec<u8>) -> io::Result<Fields> {
        let mut fields = Fields::default();
        loop {
            let line = self.line()?;
            raw.extend_from_slice(&line);
            raw.extend_from_slice(b"\r\n");
            if line.is_empty() {
                return Ok(fields);
            }
            fields.0.push(field(&line)?);
        }
    }

    /// Takes the head of a request; empty lines before it are allowed.
    pub(crate) fn request_head(&mut self) -> io::Result<RequestHead> {
        let mut line = self.line()?;
        while line.is_empty() {
            line = self.line()?;
        }
        let text = latin1(&line);
        let mut words = text.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad(format!("no request line: {text:?}")));
        };
        let legal = is_token(method)
            && !target.is_empty()
            && target.chars().all(|c| c > ' ' && c != '\x7f')
            && matches!(version, "HTTP/1.0" | "HTTP/1.1");
        if !legal {
            return Err(bad(format!("no request line: {text:?}")));
        }
        let mut raw = [line.as_slice(), b"\r\n"].concat();
        let fields = self.fields(&mut raw)?;
        let hosts = fields.all("host").len();
        if hosts > 1 || (hosts == 0 && version == "HTTP/1.1") {
            return Err(bad(format!("{hosts} Host lines")));
        }
        Ok(RequestHead {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            fields,
            raw,
        })
    }

    /// Takes the head of a response.
    pub(crate) fn response_head(&mut self) -> io::Result<ResponseHead> {
        let line = self.line()?;
        let text = latin1(&line);
        let (version, rest) = text
            .split_once(' ')
            .ok_or_else(|| bad(format!("no status line: {text:?}")))?;
        let (digits, _phrase) = rest
            .split_once(' ')
            .ok_or_else(|| bad(format!("no space after the status: {text:?}")))?;
        let status = digits
            .parse()
            .map_err(|_| bad(format!("no status line: {text:?}")))?;
        if !matches!(version, "HTTP/1.0" | "HTTP/1.1") || digits.len() != 3 || status < 100 {
            return Err(bad(format!("no status line: {text:?}")));
        }
        let mut raw = [line.as_slice(), b"\r\n"].concat();
        let fields = self.fields(&mut raw)?;
        Ok(ResponseHead {
            version: version.to_owned(),
            status,
            fields,
            raw,
        })
    }

    /// Takes a body, and gives its trailers; what came before an error stays in `body`.
    pub(crate) fn body(&mut self, framing: Framing, body: &mut Vec<u8>) -> io::Result<Fields> {
        match framing {
            Framing::None => {}
            Framing::Length(len) => self.exact_into(len, body)?,
            Framing::UntilClose => body.extend_from_slice(&self.rest()?),
            Framing::Chunked => loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    return self.fields(&mut Vec::new());
                }
                body.extend_from_slice(&chunk);
            },
        }
        Ok(Fields::default())
    }

    /// Takes one chunk; the empty one is the last, and its trailers are still to come.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = latin1(&self.line()?);
        let digits = line.split(';').next().unwrap_or_default();
        if digits.is_empty() || digits.len() > 8 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad(format!("no chunk size: {line:?}")));
        }
        let len = usize::from_str_radix(digits, 16).map_err(|error| bad(error.to_string()))?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let data = self.exact(len)?;
        if !self.line()?.is_empty() {
            return Err(bad("a chunk longer than its size"));
        }
        Ok(data)
    }

    /// Takes a request with its body.
    pub(crate) fn request(&mut self) -> io::Result<Request> {
        let mut request = Request::default();
        self.request_into(&mut request)?;
        Ok(request)
    }

    fn request_into(&mut self, request: &mut Request) -> io::Result<()> {
        let start = self.taken;
        request.head = self.request_head()?;
        request.start = start;
        let framing = request_framing(&request.head)?;
        request.trailers = self.body(framing, &mut request.body)?;
        request.complete = true;
        Ok(())
    }

    /// Takes a response to a request of this method, with what came before it.
    pub(crate) fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut informational = Vec::new();
        loop {
            let head = self.response_head()?;
            if head.status < 200 && head.status != 101 {
                informational.push(head);
                continue;
            }
            let framing = response_framing(method, &head)?;
            let mut body = Vec::new();
            let trailers = self.body(framing, &mut body)?;
            return Ok(Response {
                status: head.status,
                head,
                body,
                trailers,
                framing,
                informational,
            });
        }
    }
}

fn is_token(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(legal)
}

fn field(line: &[u8]) -> io::Result<(String, String)> {
    let text = latin1(line);
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| bad(format!("no header line: {text:?}")))?;
    let value = value.trim_matches([' ', '\t']);
    let control = |c: char| (c < ' ' && c != '\t') || c == '\x7f';
    if !is_token(name) || value.contains(control) {
        return Err(bad(format!("no header line: {text:?}")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn length(fields: &Fields) -> io::Result<Option<usize>> {
    let lengths = fields.all("content-length");
    match lengths.as_slice() {
        [] => Ok(None),
        [digits] if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) => digits
            .parse()
            .map(Some)
            .map_err(|_| bad(format!("Content-Length: {digits}"))),
        other => Err(bad(format!("Content-Length: {other:?}"))),
    }
}

/// How the body of a request ends; two ways to say it are an error.
pub(crate) fn request_framing(head: &RequestHead) -> io::Result<Framing> {
    let codings = head.fields.all("transfer-encoding");
    match (codings.as_slice(), length(&head.fields)?) {
        ([], None) => Ok(Framing::None),
        ([], Some(len)) => Ok(Framing::Length(len)),
        ([coding], None)
            if coding.eq_ignore_ascii_case("chunked") && head.version == "HTTP/1.1" =>
        {
            Ok(Framing::Chunked)
        }
        (codings, len) => Err(bad(format!(
            "Transfer-Encoding {codings:?} and Content-Length {len:?}"
        ))),
    }
}

/// How the body of a response ends.
pub(crate) fn response_framing(method: &str, head: &ResponseHead) -> io::Result<Framing> {
    let codings = head.fields.all("transfer-encoding");
    let len = length(&head.fields)?;
    if method == "HEAD" || head.status < 200 || matches!(head.status, 204 | 304) {
        return Ok(Framing::None);
    }
    match (codings.as_slice(), len) {
        ([], Some(len)) => Ok(Framing::Length(len)),
        ([], None) => Ok(Framing::UntilClose),
        ([coding], None) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (codings, len) => Err(bad(format!(
            "Transfer-Encoding {codings:?} and Content-Length {len:?}"
        ))),
    }
}

/// What a strict parser finds in a stream of requests.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The requests whose heads are whole; the last may lack some of its body.
    pub(crate) requests: Vec<Request>,
    /// Why the parser stopped before the end, if it did.
    pub(crate) fault: Option<String>,
}

/// Reads a stream of requests until its end or its first fault.
pub(crate) fn requests_in(bytes: &[u8]) -> Found {
    let mut wire = Wire::new(bytes);
    let mut found = Found::default();
    loop {
        let mut request = Request::default();
        let outcome = wire.request_into(&mut request);
        if !request.head.method.is_empty() {
            found.requests.push(request);
        }
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return found,
            Err(error) => {
                found.fault = Some(error.to_string());
                return found;
            }
        }
    }
}
