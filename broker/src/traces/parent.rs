//! The `traceparent` of a message (W3C Trace Context, version 00): `00-<trace id>-<span id>-<flags>`, in hexadecimal.

use bellwether_protocol::headers::{HeaderValue, Headers};
use bytes::Bytes;
use opentelemetry::{SpanId, TraceFlags, TraceId};

/// Name of the header.
const TRACEPARENT: &str = "traceparent";

/// The producer's span: what the broker's spans are children of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
}

/// Whether the header may be among these bytes. Much quicker than decoding; a body that holds the word makes it wrong.
pub(super) fn may_be_in(bytes: &[u8]) -> bool {
    bytes.windows(TRACEPARENT.len()).any(|window| window == TRACEPARENT.as_bytes())
}

impl Parent {
    /// The span that a message's headers name, if it is sampled. What cannot be read is no parent: a trace is never a reason
    /// to refuse a message.
    #[must_use]
    pub fn of(headers: &Bytes) -> Option<Parent> {
        if !may_be_in(headers) {
            return None;
        }
        match Headers::decode(headers).ok()?.0.get(TRACEPARENT)? {
            HeaderValue::Text(text) => Parent::parse(text),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Parent> {
        let mut fields = text.split('-');
        let mut field = |digits: usize| {
            let is_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            fields.next().filter(|field| field.len() == digits && field.bytes().all(is_hex))
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // Later versions may add fields; of this one there are four. `ff` is none.
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        let parent =
            Parent { trace: TraceId::from_hex(trace).ok()?, span: SpanId::from_hex(span).ok()? };
        let sampled = u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8() != 0;
        let named = parent.trace != TraceId::INVALID && parent.span != SpanId::INVALID;
        (sampled && named).then_some(parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parse(text: &str) -> Option<String> {
        Parent::parse(text).map(|parent| format!("{}/{}", parent.trace, parent.span))
    }

    #[test]
    fn a_sampled_parent_is_read_and_one_that_is_not_sampled_is_none() {
        let read = parse(&format!("00-{TRACE}-00f067aa0ba902b7-01"));
        assert_eq!(read, Some(format!("{TRACE}/00f067aa0ba902b7")));
        assert_eq!(parse(&format!("00-{TRACE}-00f067aa0ba902b7-00")), None);
        // A later version, with more behind it.
        assert!(parse(&format!("01-{TRACE}-00f067aa0ba902b7-03-x")).is_some());
    }

    #[test]
    fn what_is_no_parent_is_passed_over() {
        for wrong in [
            "",
            "00",
            "00-4bf9-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
