//! The headers of W3C Trace Context, level 1. Pure.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Says which trace a request belongs to, and which span sent it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems say of that beside it; passed on as it comes.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of a `traceparent` of version 00, and least length of one of a later version.
const LENGTH: usize = 55;
/// Longest `tracestate` that is passed on, bytes; the standard asks for 512.
const STATE_BYTES: usize = 1024;

/// The id of a trace: 16 bytes, not all zero. Displayed as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub NonZeroU128);

/// The id of a span: 8 bytes, not all zero. Displayed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub NonZeroU64);

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span that sends the request.
    pub span: SpanId,
    /// Whether spans of the trace are recorded.
    pub sampled: bool,
}

impl Context {
    /// That of a request: `None` where its `traceparent` is missing, malformed or given twice, all of which count as no trace.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(&TRACEPARENT).iter();
        let first = given.next()?;
        if given.next().is_some() {
            return None;
        }
        Self::parse(first.as_bytes())
    }

    /// Reads `00-TRACE-SPAN-FLAGS`, or the same beginning of a later version.
    fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let version = hex(&known[..2])?;
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        if !dashes || !ends {
            return None;
        }
        Some(Self {
            trace: TraceId(NonZeroU128::new(hex(&known[3..35])?)?),
            span: SpanId(NonZeroU64::new(u64::try_from(hex(&known[36..52])?).ok()?)?),
            sampled: hex(&known[53..])? & 1 == 1,
        })
    }

    /// The header's value, in version 00.
    pub fn header(&self) -> Option<HeaderValue> {
        let flags = u8::from(self.sampled);
        HeaderValue::try_from(format!("00-{}-{}-{flags:02x}", self.trace, self.span)).ok()
    }
}

/// What tracing systems say, in one value; `None` where it is missing, empty or too long.
pub(crate) fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut given = headers.get_all(&TRACESTATE).iter().filter(|value| !value.is_empty());
    let first = given.next()?;
    let fits = |value: &HeaderValue| value.len() <= STATE_BYTES;
    let rest: Vec<&[u8]> = given.map(HeaderValue::as_bytes).collect();
    if rest.is_empty() {
        return Some(first.clone()).filter(fits);
    }
    let joined = [&[first.as_bytes()], rest.as_slice()].concat().join(&b","[..]);
    HeaderValue::from_bytes(&joined).ok().filter(fits)
}

/// The number that lower-case hexadecimal digits stand for, at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_context_is_read_and_written() {
        for (flags, sampled) in [("00", false), ("01", true), ("03", true), ("fe", false)] {
            let value = format!("00-{TRACE}-{SPAN}-{flags}");
            let context = Context::of(&headers(&[("traceparent", &value)])).unwrap();
            assert_eq!((context.trace.to_string(), context.span.to_string()), (TRACE.into(), SPAN.into()));
            assert_eq!(context.sampled, sampled, "{flags}");
            let written = format!("00-{TRACE}-{SPAN}-0{}", u8::from(sampled));
            assert_eq!(context.header().unwrap(), written, "other flags are not ours to set");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for rest in ["", "-", "-what-comes-later"] {
            let value = format!("cc-{TRACE}-{SPAN}-01{rest}");
            assert!(Context::parse(value.as_bytes()).unwrap().sampled, "{value}");
        }
        assert_eq!(Context::parse(format!("cc-{TRACE}-{SPAN}-01.x").as_bytes()), None);
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for value in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(Context::of(&headers(&[("traceparent", &value)])), None, "{value:?}");
        }
        let value = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(Context::of(&headers(&[("traceparent", &value), ("traceparent", &value)])), None, "twice");
    }

    #[test]
    fn states_are_joined_in_their_order() {
        let of = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("tracestate", *value)).collect();
            state(&headers(&pairs)).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[""]), None);
        assert_eq!(of(&["a=1"]).as_deref(), Some("a=1"));
        assert_eq!(of(&["a=1,b=2", "", "c=3"]).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(of(&[&"a".repeat(STATE_BYTES)]).map(|value| value.len()), Some(STATE_BYTES));
        assert_eq!(of(&[&"a".repeat(STATE_BYTES), "b=1"]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_written_alike(value in "[0-9a-f-]{50,60}|.{0,80}|00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]") {
            if let Some(context) = Context::parse(value.as_bytes()) {
                let written = context.header().unwrap();
                prop_assert_eq!(Context::parse(written.as_bytes()), Some(context));
            }
        }
    }
}
