//! Reports out of a stream of server-sent events. Between events nothing is held, as thousands of streams are silent
//! most of the time.

/// Bytes of one event; a stream with more is opened anew.
const EVENT_BYTES: usize = 1 << 20;
/// The events that are read; others are skipped.
const REPORT: &str = "report";

/// An event is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {EVENT_BYTES} bytes")]
pub(super) struct TooLong;

/// The event that is under way.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<u8>);

impl Events {
    /// Takes in what was read; returns the data of the reports that it completes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        self.0.extend_from_slice(bytes);
        let mut reports = Vec::new();
        while let Some(end) = end(&self.0) {
            let rest = self.0.split_off(end);
            let event = std::mem::replace(&mut self.0, rest);
            reports.extend(report(&event));
        }
        if self.0.len() > EVENT_BYTES { Err(TooLong) } else { Ok(reports) }
    }
}

/// Where the first event ends: after an empty line.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            return Some(end);
        }
    }
    None
}

/// The data of an event, if it is a report.
fn report(event: &[u8]) -> Option<String> {
    let mut name = None;
    let mut data: Option<String> = None;
    for line in std::str::from_utf8(event).ok()?.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut data) {
            ("event", _) => name = Some(value),
            ("data", None) => data = Some(value.to_owned()),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            _ => {} // comments have an empty field name
        }
    }
    data.filter(|_| name == Some(REPORT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reports_are_read_and_all_else_is_skipped() {
        let mut events = Events::default();
        let stream = b":\n\nevent: other\ndata: 1\n\n\nevent:report\r\ndata: {\r\ndata: }\r\nid: 7\r\n\r\ndata: 2\n\nevent: report\n\nevent: rep";
        assert_eq!(events.push(stream).unwrap(), ["{\n}"]);
        assert_eq!(events.push(b"ort\ndata: {}\n").unwrap(), Vec::<String>::new());
        assert_eq!(events.push(b"\n").unwrap(), ["{}"]);
        assert_eq!(events.0.capacity(), 0, "nothing is held");
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        assert!(events.push(&vec![b'x'; EVENT_BYTES]).is_ok());
        assert_eq!(events.push(b"x"), Err(TooLong));
    }

    proptest! {
        #[test]
        fn reports_survive_any_split(reports in prop::collection::vec("[ -~]{1,40}", 0..6), cut in 1_usize..20) {
            let stream: String = reports.iter().map(|report| format!(":\n\nevent: report\ndata: {report}\n\n")).collect();
            let mut events = Events::default();
            let read: Vec<_> = stream.as_bytes().chunks(cut).flat_map(|part| events.push(part).unwrap()).collect();
            prop_assert_eq!(read, reports);
        }
    }
}
