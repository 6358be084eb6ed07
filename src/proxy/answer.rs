//! The head of an upstream's answer, judged as strictly as a request's.

use std::mem::MaybeUninit;

use super::{
    body::Framing,
    buffer::Buffer,
    compose,
    head::content_length,
    names::{Name, tokens, well_known},
};

/// Bytes of an answer's head at most.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields of an answer at most: applications set many cookies.
pub(crate) const FIELDS_MAX: usize = 512;

/// Why an answer cannot be passed on, in words for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadAnswer(pub(crate) &'static str);

/// What the head of an answer says to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// Bytes of the head in the buffer.
    pub(crate) length: usize,
    /// Whether the upstream keeps the connection for another request.
    pub(crate) keeps_alive: bool,
    pub(crate) has_date: bool,
    /// No field of it ends here.
    pub(crate) all_go_back: bool,
    /// `Connection` names fields that end here.
    pub(crate) connection_names_fields: bool,
}

/// Which request an answer is for decides where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) head: bool,
    pub(crate) upgrade: bool,
}

/// Whether `buffer` may hold a whole head, when it did not at `parsed_at` bytes.
///
/// A head that comes byte by byte is not parsed anew for each of them.
pub(crate) fn is_worth_parsing(buffer: &Buffer, parsed_at: usize) -> bool {
    let bytes = buffer.bytes();
    if parsed_at == 0 || bytes.len() >= parsed_at.saturating_mul(2) {
        return !bytes.is_empty();
    }
    let new = bytes.get(parsed_at.saturating_sub(3)..).unwrap_or_default();
    memchr::memmem::find(new, b"\n\r\n").is_some() || memchr::memmem::find(new, b"\n\n").is_some()
}

/// Hands the parsed head at the front of `input` to `then`.
pub(crate) fn with_fields<T>(
    input: &[u8],
    then: impl FnOnce(&httparse::Response<'_, '_>, usize) -> Result<T, BadAnswer>,
) -> Result<Option<T>, BadAnswer> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut fields,
    ) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => {
            then(&response, length).map(Some)
        }
        Ok(httparse::Status::Complete(_)) => Err(BadAnswer("a head that is too long")),
        Ok(httparse::Status::Partial) if input.len() >= HEAD_BYTES_MAX => {
            Err(BadAnswer("a head that is too long"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(BadAnswer("not an HTTP/1.1 answer")),
    }
}

/// What a parsed head of `length` bytes says.
///
/// # Errors
/// When it cannot be passed on in one meaning.
pub(crate) fn judge(
    response: &httparse::Response<'_, '_>,
    length: usize,
    asked: Asked,
) -> Result<AnswerHead, BadAnswer> {
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(BadAnswer("no status line"));
    };
    if !(100..=599).contains(&status) {
        return Err(BadAnswer("a status outside 100 to 599"));
    }
    let mut declared = None;
    let mut codings = 0;
    let mut head = AnswerHead {
        status,
        framing: Framing::None,
        length,
        keeps_alive: version == 1,
        has_date: false,
        all_go_back: true,
        connection_names_fields: false,
    };
    for field in response.headers.iter() {
        let meaning = well_known(field.name.as_bytes());
        head.all_go_back &= compose::goes_back(meaning, status);
        if meaning == Name::ContentLength {
            let length = content_length(field.value).ok_or(BadAnswer("a bad Content-Length"))?;
            if declared.replace(length).is_some() {
                return Err(BadAnswer("more than one Content-Length"));
            }
        } else if meaning == Name::TransferEncoding {
            codings += 1;
            if !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(BadAnswer("a Transfer-Encoding other than chunked"));
            }
        } else if meaning == Name::Connection {
            take_connection(&mut head, field.value);
        } else if meaning == Name::Date {
            head.has_date = true;
        }
    }
    let bodyless = asked.head || status < 200 || status == 204 || status == 304;
    head.framing = match (declared, codings) {
        (Some(_), 1..) => return Err(BadAnswer("Content-Length beside Transfer-Encoding")),
        (None, 2..) => return Err(BadAnswer("more than one Transfer-Encoding")),
        (_, 1) if version == 0 => return Err(BadAnswer("Transfer-Encoding in HTTP/1.0")),
        _ if bodyless => Framing::None,
        (Some(length), _) => Framing::Length(length),
        (None, 1) => Framing::Chunked,
        (None, _) => Framing::UntilClose,
    };
    if status == 101 && !asked.upgrade {
        return Err(BadAnswer("a switch of protocols that nobody asked for"));
    }
    if head.framing == Framing::UntilClose {
        head.keeps_alive = false;
    }
    Ok(head)
}

fn take_connection(head: &mut AnswerHead, value: &[u8]) {
    for token in tokens(value) {
        if token.eq_ignore_ascii_case(b"close") {
            head.keeps_alive = false;
        } else if !token.eq_ignore_ascii_case(b"keep-alive")
            && !token.eq_ignore_ascii_case(b"upgrade")
        {
            head.connection_names_fields = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<AnswerHead>, BadAnswer> {
        let asked = Asked {
            head: false,
            upgrade: false,
        };
        with_fields(text.as_bytes(), |response, length| {
            judge(response, length, asked)
        })
    }

    #[test]
    fn the_body_ends_where_the_rfc_says() {
        let framing = |text: &str| parsed(text).unwrap().unwrap().framing;
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            Framing::Length(5)
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Framing::Chunked
        );
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
        assert_eq!(
            framing("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
            Framing::None
        );
        assert_eq!(
            framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            Framing::None
        );
    }

    #[test]
    fn answers_with_two_meanings_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/3.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 1000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_that_closes_is_not_kept() {
        let keeps = |text: &str| parsed(text).unwrap().unwrap().keeps_alive;
        assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!keeps(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\n\r\n"));
    }
}
