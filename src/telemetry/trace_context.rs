//! Which trace a request belongs to: the field `traceparent` (W3C Trace Context, section 3.2).

/// The field's name.
pub const TRACEPARENT: &[u8] = b"traceparent";

/// A trace, and the span in it that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: u128,
    /// Never zero.
    pub span_id: u64,
    /// [`SAMPLED`], and whether the trace's id is random; others are not passed on.
    pub flags: u8,
}

/// Whoever asks records this trace.
pub const SAMPLED: u8 = 1;
/// The flags that have a meaning: the trace is recorded, its id is random.
const KNOWN_FLAGS: u8 = 3;
/// `00-` trace `-` span `-` flags.
const BYTES: usize = 55;

impl TraceContext {
    /// Reads a field's value; none where it is not one.
    ///
    /// A later version is read as far as this one goes, as the recommendation asks (section 3.2.3).
    pub fn read(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(BYTES)?;
        let mut parts = known.split(|&byte| byte == b'-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        let ends_well = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let is_one = ends_well && parts.next().is_none() && trace_id != 0 && span_id != 0;
        is_one.then_some(Self {
            trace_id,
            span_id,
            flags: flags & KNOWN_FLAGS,
        })
    }

    /// Whether whoever asks records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The field's value.
    pub fn value(&self) -> [u8; BYTES] {
        let mut value = [b'-'; BYTES];
        let parts: [(usize, u128, usize); 4] = [
            (0, 0, 2),
            (3, self.trace_id, 32),
            (36, self.span_id.into(), 16),
            (53, self.flags.into(), 2),
        ];
        for (at, number, digits) in parts {
            if let Some(place) = value.get_mut(at..at + digits) {
                write_hex(number, place);
            }
        }
        value
    }
}

/// Writes the lowest digits of a number, as many as there is room for.
pub(super) fn write_hex(mut number: u128, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        let four = (number & 15) as usize;
        *digit = b"0123456789abcdef".get(four).copied().unwrap_or(b'0');
        number >>= 4;
    }
}

/// The number that so many lower-case digits are.
fn hex(digits: &[u8], count: usize) -> Option<u128> {
    if digits.len() != count {
        return None;
    }
    digits.iter().try_fold(0_u128, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The recommendation's own example.
    const EXAMPLE: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_recommendation_reads_and_writes() {
        let context = TraceContext::read(EXAMPLE).unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled());
        assert_eq!(context.value(), EXAMPLE);
    }

    #[test]
    fn what_the_recommendation_forbids_is_none() {
        let example = std::str::from_utf8(EXAMPLE).unwrap();
        for wrong in [
            "",
            "00",
            &example.to_uppercase(),
            &example.replace("00-4", "ff-4"),
            &example.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &example.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &format!("{example}-more"),
            &format!(" {example}"),
            &example.replace("-00f0", "x00f0"),
            &example.replace("00-4b", "cc-4b").replace("-01", "-01x"),
        ] {
            assert_eq!(TraceContext::read(wrong.as_bytes()), None, "{wrong}");
        }
        let later = example.replace("00-4b", "cc-4b") + "-what-comes";
        assert!(TraceContext::read(later.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value: Vec<u8>) {
            let _ = TraceContext::read(&value);
        }

        #[test]
        fn what_is_written_reads_back(trace_id in 1_u128.., span_id in 1_u64.., flags in 0_u8..4) {
            let context = TraceContext { trace_id, span_id, flags };
            prop_assert_eq!(TraceContext::read(&context.value()), Some(context));
        }
    }
}
