//! Words joined into running text, and the signs in it: where a space goes, where a sentence ends.

use super::Word;

/// Where the spaces between words come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// The pieces carry their own: put nothing between them.
    Carried,
    /// Words come bare: put a space between them where the script has one.
    Implied,
}

/// How a word follows the text before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// Belongs to the word before: no space, and no line may break here.
    Tight,
    /// No space, but a line may break here.
    Loose,
    /// A space, or a line break.
    Space,
}

impl Spacing {
    /// Tells from the words after the first: a quarter of them with a leading space make it
    /// [`Spacing::Carried`], for words may come in several fragments.
    pub fn of(words: &[Word]) -> Self {
        let rest = words.get(1..).unwrap_or(&[]);
        let spaced = rest.iter().filter(|word| word.text.starts_with(char::is_whitespace)).count();
        if spaced > 0 && 4 * spaced >= rest.len() { Self::Carried } else { Self::Implied }
    }

    /// How `word` follows `before`, neither of them trimmed. An empty side is no side: the joint is tight.
    pub(super) fn joint(self, before: &str, word: &str) -> Joint {
        let (Some(last), Some(first)) = (before.chars().next_back(), word.chars().next()) else {
            return Joint::Tight;
        };
        let bare = if self == Self::Carried { Joint::Tight } else { Joint::Space };
        if last.is_ascii_alphanumeric() && first.is_ascii_alphanumeric() {
            return bare; // most words, at once
        }
        if last.is_whitespace() || first.is_whitespace() {
            return Joint::Space;
        }
        if is_closing(first) || is_opening(last) {
            return Joint::Tight;
        }
        if is_ideographic(first) {
            return Joint::Loose;
        }
        bare
    }
}

/// Joins words into text, trimmed. `spacing` must be that of the whole list the words are taken from.
pub fn join(words: &[Word], spacing: Spacing) -> String {
    let mut text = String::with_capacity(words.iter().map(|word| word.text.len() + 1).sum());
    extend(&mut text, words, spacing);
    text
}

/// Appends words to text that ends without a space, and ends so again.
pub fn extend(text: &mut String, words: &[Word], spacing: Spacing) {
    for word in words {
        push(text, &word.text, spacing);
    }
    text.truncate(text.trim_end().len());
}

/// Appends a word to text, with one space if one is due.
pub(super) fn push(text: &mut String, word: &str, spacing: Spacing) {
    match spacing.joint(text, word) {
        Joint::Space => {
            text.truncate(text.trim_end().len());
            text.push(' ');
            text.push_str(word.trim_start());
        }
        Joint::Tight | Joint::Loose => text.push_str(if text.is_empty() { word.trim_start() } else { word }),
    }
}

/// Whether a sentence ends with this word: a full stop, question or exclamation mark, quotes and brackets behind
/// it aside. Initials ("J.") and a few abbreviations end nothing.
pub fn ends_sentence(word: &str) -> bool {
    if word.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return false; // most words, at once
    }
    let word = word.trim().trim_end_matches(['"', '\'', '”', '’', '»', ')', ']', '」', '』']);
    if word.ends_with(['?', '!', '。', '？', '！', '…']) {
        return true;
    }
    let Some(stem) = word.strip_suffix('.') else { return false };
    let mut letters = stem.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_uppercase()
        && letter != 'I'
    {
        return false;
    }
    const ABBREVIATIONS: [&str; 11] = ["mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "e.g", "i.e"];
    !ABBREVIATIONS.iter().any(|short| short.eq_ignore_ascii_case(stem))
}

/// Whether a clause may end with this word: a comma, colon, semicolon or dash, or the end of a sentence.
pub(super) fn ends_clause(word: &str) -> bool {
    let word = word.trim().trim_end_matches(['"', '\'', '”', '’', '»', ')', ']', '」', '』']);
    word.ends_with([',', ';', ':', '–', '—', '、', '，', '；', '：']) || ends_sentence(word)
}

/// Punctuation that clings to the word before it.
fn is_closing(c: char) -> bool {
    matches!(
        c,
        '.' | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '%'
            | ')'
            | ']'
            | '}'
            | '»'
            | '”'
            | '…'
            | '、'
            | '。'
            | '，'
            | '．'
            | '！'
            | '？'
            | '：'
            | '；'
            | '）'
            | '】'
            | '」'
            | '』'
            | '》'
            | '〉'
            | '・'
            | 'ー'
    )
}

/// Punctuation that clings to the word behind it.
fn is_opening(c: char) -> bool {
    matches!(c, '(' | '[' | '{' | '«' | '“' | '„' | '¿' | '¡' | '（' | '【' | '「' | '『' | '《' | '〈')
}

/// Chinese and Japanese characters, which take no spaces between words and twice the room. Korean has spaces.
pub(super) fn is_ideographic(c: char) -> bool {
    matches!(c, '\u{2E80}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF01}'..='\u{FF60}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(texts: &[&str]) -> String {
        let words: Vec<Word> =
            texts.iter().map(|&text| Word { start: 0.0, end: 0.0, text: text.to_owned() }).collect();
        join(&words, Spacing::of(&words))
    }

    #[test]
    fn bare_words_get_one_space() {
        assert_eq!(joined(&["Good", "morning", ",", "all", "."]), "Good morning, all.");
        assert_eq!(joined(&["¿", "Qué", "?", "(", "sic", ")"]), "¿Qué? (sic)");
        assert_eq!(joined(&["one"]), "one");
        assert_eq!(joined(&[]), "");
    }

    #[test]
    fn carried_spaces_are_kept_and_pieces_stay_whole() {
        assert_eq!(joined(&[" Good", " mor", "ning", " all", "."]), "Good morning all.");
    }

    #[test]
    fn a_stray_space_does_not_double() {
        assert_eq!(joined(&["a ", "b", " c", "d", "e", "f "]), "a b c d e f");
        assert_eq!(joined(&["a", "", " ", "b", ""]), "a b");
    }

    #[test]
    fn ideographs_take_no_space() {
        assert_eq!(joined(&["今日", "は", "晴れ", "。", "Hello", "world"]), "今日は晴れ。 Hello world");
    }

    #[test]
    fn sentences_end_at_marks_but_not_at_abbreviations() {
        for word in ["end.", "why?", "no!\"", ".", "終。", " I.", "3.", "well…"] {
            assert!(ends_sentence(word), "{word}");
        }
        for word in ["end", "Mr.", "J.", "e.g.", "a,", "", "3.5", "\""] {
            assert!(!ends_sentence(word), "{word}");
        }
    }
}
