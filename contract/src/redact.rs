//! Makes an engine's error body fit to be kept: at most 4 KiB, no control characters, nothing that a user sent.

use serde_json::Value;

/// Longest kept body, bytes.
pub const KEPT_BYTES: usize = 4096;
/// Of a longer body, bytes kept of its beginning; the rest is its end, where tracebacks name the error.
const KEPT_HEAD: usize = 1024;
/// Bytes looked at.
const READ_BYTES: usize = 64 * 1024;
/// Stands for what was taken out.
const MASK: &str = "[...]";

/// Members of an error object that hold the engine's own words; other text members are masked.
const OWN_WORDS: &[&str] = &[
    "code",
    "detail",
    "error",
    "errors",
    "exception",
    "loc",
    "message",
    "msg",
    "object",
    "param",
    "reason",
    "stack",
    "status",
    "title",
    "traceback",
    "type",
];

/// Quoted texts with one of these are the GPU's words, not a user's.
const GPU_WORDS: &[&str] =
    &["CUDA error", "CUDA out of memory", "cudaError", "CUDA_ERROR", "CUBLAS_STATUS", "CUDNN_STATUS"];

/// Names of source files keep their quotes in tracebacks.
const SOURCE_FILES: &[&str] = &[".py", ".cu", ".cpp", ".cc", ".h", ".so"];

/// `name=value` pairs whose value is secret.
const SECRET_NAMES: &[&str] =
    &["authorization", "token", "secret", "password", "api_key", "apikey", "api-key"];

/// The body with user data masked, at most [`KEPT_BYTES`] long.
///
/// Masked are: quoted strings and members of JSON objects that are not the engine's own words, runs of 9 digits, 16 hex
/// digits or 32 base64 characters and more, credentials and queries of URLs, mail addresses, bearer tokens.
pub fn redact(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body.get(..READ_BYTES).unwrap_or(body));
    let text = match serde_json::from_str::<Value>(&body) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => mask_value(value, true).to_string(),
        _ => mask_text(&body),
    };
    shorten(&text)
}

fn mask_value(value: Value, own_words: bool) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let own = OWN_WORDS.contains(&name.as_str());
                (mask_text(&name), mask_value(value, own))
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| mask_value(item, own_words)).collect(),
        Value::String(text) if own_words => Value::String(mask_text(&text)),
        Value::String(_) => MASK.into(),
        Value::Number(number) if number.to_string().len() >= 9 => MASK.into(),
        other => other,
    }
}

fn mask_text(text: &str) -> String {
    let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    mask_words(&mask_quoted(&plain))
}

/// Replaces what stands between quotes, unless it is the GPU's words or a source file.
fn mask_quoted(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        // An apostrophe within a word quotes nothing.
        let opens = matches!(letter, '"' | '\'' | '\u{201c}' | '\u{2018}') && !before.is_alphanumeric();
        if !opens {
            masked.push(letter);
            before = letter;
            rest = after;
            continue;
        }
        let closing = match letter {
            '\u{201c}' => '\u{201d}',
            '\u{2018}' => '\u{2019}',
            same => same,
        };
        let end = closing_quote(after, closing);
        let quoted = &after[..end];
        masked.push(letter);
        if OWN_WORDS.contains(&quoted)
            || GPU_WORDS.iter().any(|word| quoted.contains(word))
            || SOURCE_FILES.iter().any(|ending| quoted.ends_with(ending))
        {
            masked.push_str(quoted);
        } else {
            masked.push_str(MASK);
        }
        before = ' ';
        rest = &after[end..];
        if let Some(rest_after) = rest.strip_prefix(closing) {
            masked.push(closing);
            before = closing;
            rest = rest_after;
        }
    }
    masked
}

/// Where the quote ends; an open one ends with the text.
fn closing_quote(text: &str, closing: char) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find(closing).map(|at| from + at) {
        let next = text[at + closing.len_utf8()..].chars().next();
        if closing != '\'' || !next.is_some_and(char::is_alphanumeric) {
            return at;
        }
        from = at + closing.len_utf8();
    }
    text.len()
}

fn mask_words(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut secret_next = false;
    for word in text.split_inclusive(' ') {
        let (word, space) = word.strip_suffix(' ').map_or((word, ""), |word| (word, " "));
        if secret_next && !word.is_empty() {
            masked.push_str(MASK);
            secret_next = false;
        } else {
            masked.push_str(&mask_word(word));
            let name = word.trim_matches(|letter: char| !letter.is_alphanumeric());
            secret_next |= name.eq_ignore_ascii_case("bearer") || name.eq_ignore_ascii_case("basic");
        }
        masked.push_str(space);
    }
    masked
}

fn mask_word(word: &str) -> String {
    if let Some((scheme, address)) = word.split_once("://") {
        let (address, query) =
            address.split_once('?').map_or((address, ""), |(address, _)| (address, "?[...]"));
        let (user, address) = address.rsplit_once('@').map_or(("", address), |(_, host)| ("[...]@", host));
        return format!("{}://{user}{}{query}", mask_runs(scheme), mask_runs(address));
    }
    if let Some((local, domain)) = word.split_once('@')
        && !local.is_empty()
        && domain.contains('.')
    {
        return MASK.into();
    }
    if let Some(at) = word.find(['=', ':']) {
        let (name, value) = word.split_at(at + 1);
        let name = name.to_ascii_lowercase();
        if !value.is_empty() && SECRET_NAMES.iter().any(|secret| name.contains(secret)) {
            return format!("{}{MASK}", &word[..=at]);
        }
    }
    mask_runs(word)
}

/// Replaces runs that look like numbers of people, keys or data.
fn mask_runs(word: &str) -> String {
    let mut masked = String::with_capacity(word.len());
    let mut run = String::new();
    for letter in word.chars() {
        if letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=' | '-' | '_') {
            run.push(letter);
            continue;
        }
        push_run(&mut masked, &run);
        run.clear();
        masked.push(letter);
    }
    push_run(&mut masked, &run);
    masked
}

fn push_run(masked: &mut String, run: &str) {
    let count = |test: fn(&u8) -> bool| run.bytes().filter(test).count();
    let digits = count(u8::is_ascii_digit);
    let mixed = digits >= 2 && count(u8::is_ascii_uppercase) >= 2 && count(u8::is_ascii_lowercase) >= 2;
    if run.len() >= 32 && mixed {
        masked.push_str(MASK);
        return;
    }
    for part in run.split_inclusive(['+', '/', '=', '-', '_']) {
        let end = part.find(['+', '/', '=', '-', '_']).unwrap_or(part.len());
        let (piece, sign) = part.split_at(end);
        let digits = piece.bytes().filter(u8::is_ascii_digit).count();
        let longest = piece.split(|letter: char| !letter.is_ascii_digit()).map(str::len).max().unwrap_or(0);
        let hex = piece.trim_start_matches("0x");
        let is_hex = hex.len() >= 16 && digits > 0 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        masked.push_str(if longest >= 9 || is_hex { MASK } else { piece });
        masked.push_str(sign);
    }
}

fn shorten(text: &str) -> String {
    if text.len() <= KEPT_BYTES {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(KEPT_HEAD);
    let tail = text.ceil_char_boundary(text.len() - (KEPT_BYTES - KEPT_HEAD - MASK.len()));
    format!("{}{MASK}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(text: &str) -> String {
        redact(text.as_bytes())
    }

    #[test]
    fn the_gpus_words_are_kept() {
        for body in [
            r#"{"detail":"CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`"}"#,
            "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
            "Search for `cudaErrorStreamCaptureUnsupported' in the manual",
            r#"{"error":{"code":500,"message":"CUDA out of memory. Tried to allocate 2.41 GiB (GPU 0; 15.77 GiB total)","type":"server_error"}}"#,
            "{'error': 'CUDA error: misaligned address'}",
            r#"  File "/usr/local/lib/python3.10/dist-packages/nemo/collections/asr/models/rnnt_models.py", line 308, in transcribe"#,
        ] {
            let kept = redacted(body);
            assert_eq!(kept, body);
        }
    }

    #[test]
    fn what_users_sent_is_masked() {
        for (body, secret) in [
            (r#"{"detail":[{"loc":["body","text"],"msg":"too long","input":"my secret diary"}]}"#, "diary"),
            (r#"{"detail":"cannot speak \"my secret diary\""}"#, "diary"),
            ("could not open 'interview with john.wav'", "john"),
            ("it's not a word: 'john's diary'", "diary"),
            ("text \u{201c}my secret diary\u{201d} has no vowels", "diary"),
            ("an open quote \"my secret diary", "diary"),
            ("call 4930123456789 back", "123456"),
            ("id=deadbeefdeadbeef0123", "deadbeef"),
            ("data:audio/wav;base64,UklGRiQdAQBXQVZFZm10IBAAAAABAAEAgD4AAAB9", "UklGR"),
            ("GET https://john:hunter2@host/path failed", "hunter2"),
            ("GET https://host/path?token=hunter2 failed", "hunter2"),
            ("Authorization: Bearer hunter2", "hunter2"),
            ("api_key=hunter2 is wrong", "hunter2"),
            ("mail john@example.org", "john"),
            (r#"{"prompt":"my secret diary","detail":"CUDA error: unknown error"}"#, "diary"),
            (r#"{"detail":"x","phone":4930123456789}"#, "4930123"),
        ] {
            let kept = redacted(body);
            assert!(!kept.contains(secret), "{kept}");
            assert!(kept.contains(MASK), "{kept}");
        }
    }

    #[test]
    fn a_long_traceback_keeps_its_end() {
        let body =
            format!("Traceback\n{}CUDA error: misaligned address", "  in some function\n".repeat(1000));
        let kept = redacted(&body);
        assert!(kept.starts_with("Traceback") && kept.ends_with("CUDA error: misaligned address"));
        assert!(kept.len() <= KEPT_BYTES);
    }

    proptest! {
        #[test]
        fn any_body_becomes_short_and_printable(body in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let kept = redact(&body);
            prop_assert!(kept.len() <= KEPT_BYTES);
            prop_assert!(!kept.chars().any(char::is_control));
        }

        #[test]
        fn quotes_in_any_place_do_no_harm(text in "[a-z'\"“”‘’ ]{0,200}") {
            let kept = redacted(&text);
            prop_assert!(kept.len() <= KEPT_BYTES);
        }
    }
}
