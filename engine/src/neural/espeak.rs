//! Text of other languages than English to phonemes, by the program `espeak-ng` where it is installed. It is started, not linked.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Error;

const PROGRAM: &str = "espeak-ng";
/// Marks that the voices know; between them the text is read piece by piece.
const MARKS: [char; 11] = [';', ':', ',', '.', '!', '?', '…', '—', '“', '”', '"'];
/// What the program writes for two sounds in one, and the voices' symbol for it.
const JOINED: [(&str, &str); 12] = [
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^z", "ʣ"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("o^ʊ", "O"),
    ("ə^ʊ", "Q"),
    ("s^s", "S"),
    ("t^s", "ʦ"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
    ("^", ""),
];

/// Whether the program can be started.
#[must_use]
pub fn is_installed() -> bool {
    let mut program = Command::new(PROGRAM);
    program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program.status().is_ok_and(|status| status.success())
}

/// The phonemes of one sentence in a language of the program, such as `es` or `pt-br`.
///
/// # Errors
/// [`Error::Program`] when the program cannot be started or refuses.
pub fn phonemes(sentence: &str, language: &str) -> Result<String, Error> {
    let failed = |reason: String| Error::Program { program: PROGRAM, reason };
    let mut program = Command::new(PROGRAM)
        .args(["-q", "--ipa", "--tie=^", "--stdin", "-v", language])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let (pieces, marks) = cut(sentence);
    if let Some(mut input) = program.stdin.take() {
        // Each piece is a paragraph, which comes back as a line.
        input.write_all(pieces.join("\n\n").as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let output = program.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    Ok(join(&String::from_utf8_lossy(&output.stdout), &marks))
}

/// The pieces of a sentence between its marks, and the marks after each.
fn cut(sentence: &str) -> (Vec<String>, Vec<String>) {
    let (mut pieces, mut marks) = (Vec::new(), Vec::new());
    let mut piece = String::new();
    let mut signs = sentence.chars().peekable();
    while let Some(sign) = signs.next() {
        // A mark within a number or a word belongs to it.
        let inside =
            !piece.ends_with(char::is_whitespace) && signs.peek().is_some_and(|next| next.is_alphanumeric());
        if !MARKS.contains(&sign) || (inside && matches!(sign, '.' | ',' | ':')) {
            piece.push(sign);
            continue;
        }
        if piece.chars().any(char::is_alphanumeric) {
            pieces.push(std::mem::take(&mut piece).trim().to_owned());
            marks.push(String::new());
        }
        if let Some(last) = marks.last_mut() {
            last.push(sign);
        }
        piece.clear();
    }
    if piece.chars().any(char::is_alphanumeric) {
        pieces.push(piece.trim().to_owned());
        marks.push(String::new());
    }
    (pieces, marks)
}

/// The program's lines in the voices' symbols, each with its marks; where it wrote other lines than pieces, with the last mark.
fn join(lines: &str, marks: &[String]) -> String {
    let lines: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let none = String::new();
    let last = marks.last().unwrap_or(&none);
    let mark = |index: usize| match lines.len() == marks.len() {
        true => &marks[index],
        false if index + 1 == lines.len() => last,
        false => &none,
    };
    let spoken = lines.iter().enumerate().map(|(index, line)| format!("{}{}", symbols(line), mark(index)));
    spoken.collect::<Vec<_>>().join(" ")
}

fn symbols(line: &str) -> String {
    let line = JOINED.iter().fold(line.to_owned(), |line, (written, symbol)| line.replace(written, symbol));
    // The program names another language in brackets where a word switches to it.
    let mut inside = false;
    let shown = |sign: &char| {
        let shown = !inside && !matches!(sign, '(' | '-');
        inside = (inside || *sign == '(') && *sign != ')';
        shown
    };
    line.chars().filter(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_cut_at_their_marks_and_joined_with_them() {
        let (pieces, marks) = cut("¿Cómo está, señor? Son las 10:30, o 3.5 horas…");
        assert_eq!(pieces, ["¿Cómo está", "señor", "Son las 10:30", "o 3.5 horas"]);
        assert_eq!(marks, [",", "?", ",", "…"]);
        let lines = " kˈomo estˈa\nsenj-ˈoɾ (en)t^ʃˈat(es)\n\nson\nˈoɾas\n";
        assert_eq!(join(lines, &marks), "kˈomo estˈa, senjˈoɾ ʧˈat? son, ˈoɾas…");
        assert_eq!(join("ˈuno\ndos\ntres", &marks), "ˈuno dos tres…");
        assert!(cut(" … ").0.is_empty());
    }
}
