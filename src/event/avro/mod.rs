//! Events as Avro, in Confluent's framing: a zero byte, the id of the schema, and the fields.
//!
//! The schemas are those of `docs/schemas/*.avsc`. Events are told as JSON and turned into Avro on their way
//! to the log, where `log.avro` asks for it; whoever reads them back turns them into the same JSON again. It
//! holds for what [`event`](crate::event) writes: fields in the order of the schema, without spaces.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use serde_json::Value;

use super::{
    access, audit, ban,
    time::{Stamps, from_rfc3339},
};

/// A schema of Wardent's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnSchema {
    /// Its id, the same on every node and for good: from 1 to [`OWN_ID_MAX`].
    pub id: u32,
    /// The topic whose values it describes.
    pub topic: &'static str,
    /// Which version of that topic's schema it is.
    pub version: u32,
    /// The schema itself.
    pub text: &'static str,
}

/// The highest id that a schema of Wardent's own may have.
pub const OWN_ID_MAX: u32 = 99;

/// All of them, the older versions of a topic first. What was ever released stays as it is: there may be
/// values of it in somebody's log.
pub const OWN: &[OwnSchema] = &[
    OwnSchema {
        id: 1,
        topic: access::TOPIC,
        version: 1,
        text: include_str!("../../../docs/schemas/wardent.http.access-value.v1.avsc"),
    },
    OwnSchema {
        id: 2,
        topic: ban::TOPIC,
        version: 1,
        text: include_str!("../../../docs/schemas/wardent.client.ban-value.v1.avsc"),
    },
    OwnSchema {
        id: 3,
        topic: audit::TOPIC,
        version: 1,
        text: include_str!("../../../docs/schemas/wardent.audit.event-value.v1.avsc"),
    },
    OwnSchema {
        id: 4,
        topic: ban::TOPIC,
        version: 2,
        text: include_str!("../../../docs/schemas/wardent.client.ban-value.v2.avsc"),
    },
];

/// The schema that values of this topic are written by; none where it is not a topic of events.
pub fn of_topic(topic: &str) -> Option<&'static Codec> {
    let mut all = CODECS.iter();
    all.rfind(|codec| codec.own.topic == topic)
}

/// Whether a value is Avro and no JSON.
pub fn is_framed(value: &[u8]) -> bool {
    value.first() == Some(&0)
}

/// The value as JSON: as it is, or turned back from Avro, in `out`; none where it is neither.
pub fn as_json<'a>(value: &'a [u8], out: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if !is_framed(value) {
        return Some(value);
    }
    let ([_, a, b, c, d], body) = value.split_first_chunk()?;
    let id = u32::from_be_bytes([*a, *b, *c, *d]);
    let codec = CODECS.iter().find(|codec| codec.own.id == id)?;
    out.clear();
    let mut input = Input(body);
    codec.layout.read(&mut input, &Stamps::default(), out)?;
    input.0.is_empty().then_some(out.as_slice())
}

static CODECS: LazyLock<Vec<Codec>> = LazyLock::new(|| {
    let all = OWN.iter().map(|own| {
        let schema: Value = serde_json::from_str(own.text).ok()?;
        let layout = Layout::of(&schema, &mut HashMap::new())?;
        Some(Codec { own, layout })
    });
    // A test sees that each of them is understood.
    all.flatten().collect()
});

/// Turns JSON into Avro by one schema.
#[derive(Debug)]
pub struct Codec {
    own: &'static OwnSchema,
    layout: Arc<Layout>,
}

impl Codec {
    /// Appends the event as Avro; nothing, and false, where it is not as the schema says.
    #[inline]
    pub fn write(&self, event: &[u8], out: &mut Vec<u8>) -> bool {
        let before = out.len();
        out.push(0);
        out.extend_from_slice(&self.own.id.to_be_bytes());
        let mut input = Input(event);
        let is_written = self.layout.write(&mut input, out).is_some() && input.0.is_empty();
        if !is_written {
            out.truncate(before);
        }
        is_written
    }
}

/// The fields of a record, in order.
#[derive(Debug)]
struct Layout(Vec<Field>);

#[derive(Debug)]
struct Field {
    /// `"name":`, as it stands in JSON.
    name: String,
    kind: Kind,
    /// Whether it may be missing: a union of null and its kind.
    is_optional: bool,
}

enum Kind {
    Text,
    Number,
    Fraction,
    Truth,
    /// Milliseconds since 1970; in JSON as RFC 3339 spells them.
    Moment,
    Record(Arc<Layout>),
    List(Box<Self>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "Text",
            Self::Number => "Number",
            Self::Fraction => "Fraction",
            Self::Truth => "Truth",
            Self::Moment => "Moment",
            Self::Record(_) => "Record",
            Self::List(_) => "List",
        })
    }
}

/// Records that were met, by name.
type Known = HashMap<String, Arc<Layout>>;

impl Layout {
    fn of(record: &Value, known: &mut Known) -> Option<Arc<Self>> {
        let fields = record.get("fields")?.as_array()?.iter().map(|field| {
            let name = format!("\"{}\":", field.get("name")?.as_str()?);
            let declared = field.get("type")?;
            let optional = match declared.as_array().map(Vec::as_slice) {
                Some([null, kind]) if *null == "null" => Some(kind),
                Some(_) => return None,
                None => None,
            };
            Some(Field {
                name,
                kind: Kind::of(optional.unwrap_or(declared), known)?,
                is_optional: optional.is_some(),
            })
        });
        let layout = Arc::new(Self(fields.collect::<Option<_>>()?));
        let name = record.get("name")?.as_str()?;
        known.insert(name.to_owned(), Arc::clone(&layout));
        Some(layout)
    }
}

impl Kind {
    fn of(declared: &Value, known: &mut Known) -> Option<Self> {
        let logical = declared.get("logicalType").and_then(Value::as_str);
        let name = declared.as_str().or_else(|| declared.get("type")?.as_str());
        Some(match (name?, logical) {
            ("string", None) => Self::Text,
            ("int" | "long", None) => Self::Number,
            ("double", None) => Self::Fraction,
            ("boolean", None) => Self::Truth,
            ("long", Some("timestamp-millis")) => Self::Moment,
            ("record", None) => Self::Record(Layout::of(declared, known)?),
            ("array", None) => Self::List(Box::new(Self::of(declared.get("items")?, known)?)),
            (name, None) => Self::Record(Arc::clone(known.get(name)?)),
            (_, Some(_)) => return None,
        })
    }
}

// From JSON to Avro.

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn skip(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl Layout {
    fn write(&self, json: &mut Input<'_>, out: &mut Vec<u8>) -> Option<()> {
        json.skip(b"{")?;
        let mut is_first = true;
        for field in &self.0 {
            let rest = match is_first {
                true => Some(json.0),
                false => json.0.strip_prefix(b","),
            };
            let found = rest.and_then(|rest| rest.strip_prefix(field.name.as_bytes()));
            match (found, field.is_optional) {
                (Some(rest), is_optional) => {
                    json.0 = rest;
                    is_first = false;
                    if is_optional {
                        // The second of the union.
                        out.push(2);
                    }
                    field.kind.write(json, out)?;
                }
                (None, true) => out.push(0),
                (None, false) => return None,
            }
        }
        json.skip(b"}")
    }
}

impl Kind {
    #[inline]
    fn write(&self, json: &mut Input<'_>, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Text => write_text(json, out),
            Self::Number => {
                let digits = json.0.iter().take_while(|byte| byte.is_ascii_digit());
                let digits = json.take(digits.count())?;
                let number = std::str::from_utf8(digits).ok()?.parse::<i64>().ok()?;
                put_long(number, out);
                Some(())
            }
            Self::Fraction => {
                let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let digits = json.take(json.0.iter().take_while(is_part).count())?;
                let number = std::str::from_utf8(digits).ok()?.parse::<f64>().ok()?;
                out.extend_from_slice(&number.to_le_bytes());
                Some(())
            }
            Self::Truth => {
                let is_true = json.0.starts_with(b"t");
                json.skip(if is_true { b"true" } else { b"false" })?;
                out.push(is_true.into());
                Some(())
            }
            Self::Moment => {
                json.skip(b"\"")?;
                let text = json.take(memchr::memchr(b'"', json.0)?)?;
                json.skip(b"\"")?;
                let unix_ms = from_rfc3339(std::str::from_utf8(text).ok()?)?;
                put_long(i64::try_from(unix_ms).ok()?, out);
                Some(())
            }
            Self::Record(layout) => layout.write(json, out),
            Self::List(kind) => {
                json.skip(b"[")?;
                while !json.0.starts_with(b"]") {
                    // A block of one. Where there are more they are few.
                    put_long(1, out);
                    kind.write(json, out)?;
                    if json.0.starts_with(b",") {
                        json.skip(b",")?;
                    }
                }
                put_long(0, out);
                json.skip(b"]")
            }
        }
    }
}

fn write_text(json: &mut Input<'_>, out: &mut Vec<u8>) -> Option<()> {
    json.skip(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', json.0)?;
    if json.0.get(end) == Some(&b'"') {
        put_bytes(json.take(end)?, out)?;
        return json.skip(b"\"");
    }
    let mut text = String::with_capacity(json.0.len().min(2 * end + 64));
    loop {
        let end = memchr::memchr2(b'"', b'\\', json.0)?;
        text.push_str(std::str::from_utf8(json.take(end)?).ok()?);
        if json.take(1)? == b"\"" {
            return put_bytes(text.as_bytes(), out);
        }
        text.push(escaped(json)?);
    }
}

/// The character behind a backslash (RFC 8259 section 7).
fn escaped(json: &mut Input<'_>) -> Option<char> {
    Some(match json.take(1)? {
        b"n" => '\n',
        b"r" => '\r',
        b"t" => '\t',
        b"b" => '\u{8}',
        b"f" => '\u{c}',
        b"u" => {
            let first = unit(json)?;
            let pair = match first {
                0xd800..0xdc00 => {
                    json.skip(b"\\u")?;
                    [first, unit(json)?]
                }
                alone => return char::from_u32(alone.into()),
            };
            char::decode_utf16(pair).next()?.ok()?
        }
        [other] => char::from(*other),
        _ => return None,
    })
}

fn unit(json: &mut Input<'_>) -> Option<u16> {
    u16::from_str_radix(std::str::from_utf8(json.take(4)?).ok()?, 16).ok()
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    put_long(i64::try_from(bytes.len()).ok()?, out);
    out.extend_from_slice(bytes);
    Some(())
}

/// A number in zigzag, seven bits a byte, the lowest first.
fn put_long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

// And back.

impl Layout {
    fn read(&self, avro: &mut Input<'_>, stamps: &Stamps, out: &mut Vec<u8>) -> Option<()> {
        out.push(b'{');
        let mut is_first = true;
        for field in &self.0 {
            if field.is_optional {
                match avro.long()? {
                    0 => continue,
                    1 => {}
                    _ => return None,
                }
            }
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            out.extend_from_slice(field.name.as_bytes());
            field.kind.read(avro, stamps, out)?;
        }
        out.push(b'}');
        Some(())
    }
}

impl Kind {
    fn read(&self, avro: &mut Input<'_>, stamps: &Stamps, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Text => {
                let length = usize::try_from(avro.long()?).ok()?;
                out.push(b'"');
                escape(std::str::from_utf8(avro.take(length)?).ok()?, out);
                out.push(b'"');
            }
            Self::Number => {
                let number = avro.long()?;
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            Self::Fraction => {
                let number = f64::from_le_bytes(avro.take(8)?.try_into().ok()?);
                number.is_finite().then_some(())?;
                out.extend_from_slice(serde_json::to_string(&number).ok()?.as_bytes());
            }
            Self::Truth => match avro.take(1)? {
                [0] => out.extend_from_slice(b"false"),
                [1] => out.extend_from_slice(b"true"),
                _ => return None,
            },
            Self::Moment => {
                let unix_ms = u64::try_from(avro.long()?).ok()?;
                out.push(b'"');
                stamps.write_rfc3339(unix_ms, out);
                out.push(b'"');
            }
            Self::Record(layout) => layout.read(avro, stamps, out)?,
            Self::List(kind) => {
                out.push(b'[');
                let mut is_first = true;
                loop {
                    let count = match avro.long()? {
                        0 => break,
                        // The length of the block in bytes follows.
                        negative @ ..0 => {
                            avro.long()?;
                            negative.unsigned_abs()
                        }
                        count => count.unsigned_abs(),
                    };
                    for _ in 0..count {
                        if !std::mem::take(&mut is_first) {
                            out.push(b',');
                        }
                        let left = avro.0.len();
                        kind.read(avro, stamps, out)?;
                        // An element has bytes: else a count costs without end.
                        (avro.0.len() < left).then_some(())?;
                    }
                }
                out.push(b']');
            }
        }
        Some(())
    }
}

impl Input<'_> {
    fn long(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return None };
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        None
    }
}

/// Appends a text as JSON in printable ASCII, as events are written.
fn escape(text: &str, out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.extend(u8::try_from(c)),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
