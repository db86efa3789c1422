//! Whole bodies: written, cut anywhere, read again.

use bytes::Bytes;
use proptest::prelude::*;

use crate::multipart::*;

const BOUNDARY: &str = "----b0undary";

fn parser(limits: Limits) -> Parser {
    Parser::new(&Boundary::new(BOUNDARY).unwrap(), limits)
}

/// Events of `body` in chunks of `sizes`, taken in turn; neighbouring file data joined.
fn events(body: &[u8], sizes: &[usize]) -> Result<Vec<Event>, Error> {
    let mut parser = parser(Limits::default());
    let mut rest = Bytes::copy_from_slice(body);
    let mut joined: Vec<Event> = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let chunk = rest.split_to((*size).clamp(1, rest.len()));
        for event in parser.push(chunk)? {
            match (joined.last_mut(), event) {
                (Some(Event::FileData(before)), Event::FileData(data)) => {
                    *before = [&before[..], &data].concat().into();
                }
                (_, event) => joined.push(event),
            }
        }
    }
    parser.finish()?;
    Ok(joined)
}

#[derive(Clone, Debug)]
enum Part {
    Field(String, String),
    File(String, Vec<u8>),
}

fn written(parts: &[Part]) -> (Vec<u8>, Vec<Event>) {
    let boundary = Boundary::new(BOUNDARY).unwrap();
    let mut writer = Writer::new(&boundary);
    let (mut body, mut expected) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Field(name, value) => {
                writer.field(&mut body, name, value).unwrap();
                expected.push(Event::Field { name: name.clone(), value: value.clone() });
            }
            Part::File(filename, data) => {
                writer.file(&mut body, "file", filename, "audio/wav");
                expected.push(Event::FileStart { name: "file".into(), filename: Some(filename.clone()) });
                body.extend_from_slice(data);
                if !data.is_empty() {
                    expected.push(Event::FileData(data.clone().into()));
                }
                expected.push(Event::FileEnd);
            }
        }
    }
    writer.close(&mut body);
    expected.push(Event::End);
    (body, expected)
}

/// File data rich in what looks like delimiters.
fn look_alikes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"\r"[..],
        b"\n",
        b"\r\n",
        b"--",
        b"\r\n--",
        b"\r\n------b0undary ",
        b"\r\n------b0undary-",
        b"\r\n------b0undary\t \r",
        b"\r\n------b0undaryX",
        b"------b0undary--",
        b"\r\n------b0undar",
        b"abc",
        b"\0",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat()).prop_filter(
        "a delimiter",
        |data| {
            // What follows the data is CR LF and a delimiter.
            let line = [data, &b"\r\n--"[..]].concat();
            let find = |end: &str| {
                let delimiter = format!("\r\n--{BOUNDARY}{end}");
                memchr::memmem::find(&line, delimiter.as_bytes()).is_none()
            };
            find("--") && find("\r\n") && find("\t \r\n") && find(" \r\n")
        },
    )
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        ("[a-z_]{1,12}(\\[\\])?", "[a-zA-Z0-9 äé\r\n-]{0,40}")
            .prop_filter("a file", |(name, _)| name != "file")
            .prop_map(|(name, value)| Part::Field(name, value)),
        ("[a-z \\\\.;=é]{0,12}", look_alikes()).prop_map(|(name, data)| Part::File(name, data)),
        ("[a-z.]{1,8}", prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(name, data)| Part::File(name, data)),
    ]
}

proptest! {
    #[test]
    fn any_chunking_gives_the_events_that_were_written(
        parts in prop::collection::vec(part(), 0..6),
        sizes in prop::collection::vec(1usize..80, 1..8),
    ) {
        let (body, expected) = written(&parts);
        prop_assert_eq!(events(&body, &[body.len()])?, expected.clone());
        prop_assert_eq!(events(&body, &[1])?, expected.clone());
        prop_assert_eq!(events(&body, &sizes)?, expected);
    }

    #[test]
    fn garbage_never_panics_and_holds_little(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            Just(b"\r\n------b0undary".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            Just(b"--".to_vec()),
            Just(b"Content-Disposition: form-data; name=\"x\"".to_vec()),
            Just(b"Content-Disposition: form-data; name=\"file\"".to_vec()),
        ], 0..40),
        size in 1usize..50,
    ) {
        let limits = Limits { field_bytes: 64, header_bytes: 96, fields: 4, ..Limits::default() };
        let mut parser = parser(limits);
        let mut given = 0;
        let body = pieces.concat();
        for chunk in body.chunks(size) {
            let Ok(events) = parser.push(Bytes::copy_from_slice(chunk)) else { break };
            prop_assert!(parser.held() <= limits.header_bytes + 6);
            given += events.iter().map(|event| if let Event::FileData(data) = event { data.len() } else { 0 }).sum::<usize>();
        }
        prop_assert!(given <= body.len());
        let _ = parser.finish();
    }

    #[test]
    fn a_cut_body_is_truncated(parts in prop::collection::vec(part(), 1..4), cut in any::<prop::sample::Index>()) {
        let (body, _) = written(&parts);
        let closing = body.len() - 2;
        prop_assert_eq!(events(&body[..cut.index(closing)], &[7]), Err(Error::Truncated));
    }
}

#[test]
fn file_data_is_not_copied() {
    let (body, _) = written(&[Part::File("a.wav".into(), vec![7; 100_000])]);
    let body = Bytes::from(body);
    let within = body.as_ptr_range();
    let mut parser = parser(Limits::default());
    for start in (0..body.len()).step_by(4096) {
        for event in parser.push(body.slice(start..body.len().min(start + 4096))).unwrap() {
            if let Event::FileData(data) = event {
                assert!(within.contains(&data.as_ptr()));
            }
        }
    }
    parser.finish().unwrap();
}

#[test]
fn preamble_padding_and_epilogue_are_accepted() {
    let body = b"preamble\r\n------b0undary \t\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper-1\
        \r\n------b0undary\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nRIFF\r\n------b0undary--\r\nepilogue";
    let expected = vec![
        Event::Field { name: "model".into(), value: "whisper-1".into() },
        Event::FileStart { name: "file".into(), filename: None },
        Event::FileData(Bytes::from_static(b"RIFF")),
        Event::FileEnd,
        Event::End,
    ];
    for size in [1, 2, 3, 16, 1000] {
        assert_eq!(events(body, &[size]).as_ref(), Ok(&expected));
    }
}

#[test]
fn limits_are_enforced() {
    let push = |limits: Limits, body: &[u8]| parser(limits).push(Bytes::copy_from_slice(body)).map(|_| ());
    let (body, _) =
        written(&[Part::Field("prompt".into(), "x".repeat(11)), Part::Field("b".into(), String::new())]);
    let limits = Limits { field_bytes: 11, header_bytes: 45, fields: 2, ..Limits::default() };
    assert_eq!(push(limits, &body), Ok(()));
    assert_eq!(
        push(Limits { field_bytes: 10, ..limits }, &body),
        Err(Error::FieldTooLong { name: "prompt".into(), limit: 10 })
    );
    assert_eq!(push(Limits { header_bytes: 44, ..limits }, &body), Err(Error::HeaderTooLong { limit: 44 }));
    assert_eq!(push(Limits { fields: 1, ..limits }, &body), Err(Error::TooManyParts { limit: 1 }));
    let endless = [&b"------b0undary\r\n"[..], &[b'x'; 10_000]].concat();
    assert_eq!(push(limits, &endless), Err(Error::HeaderTooLong { limit: 45 }));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let body =
        b"------b0undary\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\xff\r\n------b0undary--";
    assert_eq!(events(body, &[9]), Err(Error::FieldNotUtf8 { name: "prompt".into(), charset: "UTF-8" }));
}

#[test]
fn writer_cannot_be_made_to_inject() {
    let evil = "a\"\r\nX-Evil: 1\r\n\r\n\\";
    let boundary = Boundary::new(BOUNDARY).unwrap();
    let mut writer = Writer::new(&boundary);
    let mut body = Vec::new();
    writer.file(&mut body, evil, evil, "audio/wav\r\nX-Evil: 1");
    body.extend_from_slice(b"data");
    writer.field(&mut body, evil, evil).unwrap();
    assert_eq!(
        writer.field(&mut Vec::new(), "prompt", "x------b0undary"),
        Err(Error::BoundaryInValue { name: "prompt".into() })
    );
    writer.close(&mut body);
    let safe = "a%22%0D%0AX-Evil: 1%0D%0A%0D%0A\\";
    let events = events(&body, &[64]).unwrap();
    assert_eq!(events.len(), 5);
    let Event::FileStart { name, filename } = &events[0] else { panic!("no file") };
    assert_eq!((name.as_str(), filename.as_deref()), (safe, Some(safe)));
    assert!(memchr::memmem::find(&body, b"Content-Type: audio/wavX-Evil: 1\r\n").is_some());
    assert_eq!(events[3], Event::Field { name: safe.into(), value: evil.into() });
}

#[test]
fn other_charsets_are_read_where_they_are_named_and_file_names_leniently() {
    let body = b"--x\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\
        Content-Type: text/plain; charset=ISO-8859-1\r\n\r\ncaf\xe9\r\n\
        --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"gr\xfc\xdfe.wav\"\r\n\r\nabc\r\n--x--\r\n";
    let mut parser = Parser::new(&Boundary::new("x").unwrap(), Limits::default());
    let events = parser.push(Bytes::from_static(body)).unwrap();
    assert_eq!(events[0], Event::Field { name: "prompt".into(), value: "café".into() });
    assert!(matches!(&events[1], Event::FileStart { filename: Some(name), .. } if name == "grüße.wav"));
}
