//! Splits text for engines that limit the length of one synthesis.
//!
//! Pieces end at sentence ends where they can, else at clauses, else between words, and inside a word only if there is no
//! other way. What counts is how long a text is when spoken: "1,000,000" has 9 characters and takes 44 letters to say.

#[cfg(test)]
mod tests;

/// How long pieces may be, in spoken letters; never more characters than that either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For the first piece: shorter, so that its audio comes sooner.
    pub first: usize,
    /// For all others.
    pub rest: usize,
}

impl Limit {
    /// The same for all pieces.
    #[cfg(test)]
    pub fn all(limit: usize) -> Self {
        Self { first: limit, rest: limit }
    }
}

/// Splits `text` into trimmed, non-empty pieces that hold all of it but blanks at their borders.
///
/// A single character longer than the limit makes a piece of its own. An abbreviation that might end a sentence is taken not
/// to: the next sentence end is as good a place, a stop within a sentence is heard.
#[must_use]
pub fn split(text: &str, limit: Limit) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let limit = if pieces.is_empty() { limit.first } else { limit.rest };
        let (piece, after) = rest.split_at(cut(rest, limit));
        pieces.push(piece.trim_end());
        rest = after.trim_start();
    }
    pieces
}

/// Where the first sentence of a text that still grows ends, for one of at least `least` characters: a byte offset. At `most`
/// letters it ends where it can best. `None` while more may belong to it.
#[must_use]
pub fn first_end(text: &str, least: usize, most: usize) -> Option<usize> {
    let (mut before, mut length, mut characters) = (None, 0, 0);
    for (at, letter) in text.char_indices() {
        if let Some(last) = before
            && characters >= least
            && !text[at..].trim_start().is_empty()
            && matches!(Border::between(&text[..at], last, &text[at..]), Some(Border::Sentence))
        {
            return Some(at);
        }
        length += weight(letter);
        characters += 1;
        if length > most {
            return Some(cut(text, most));
        }
        before = Some(letter);
    }
    None
}

/// Letters that `text` has when spoken: a digit counts for a word, a symbol too, all else for one.
#[cfg(test)]
fn spoken_length(text: &str) -> usize {
    text.chars().map(weight).sum()
}

/// "seven", "percent" and their blank.
const WORD_LETTERS: usize = 6;

fn weight(letter: char) -> usize {
    match letter {
        '%' | '&' | '+' | '=' | '@' | '#' | '$' | '€' | '£' | '¥' | '°' | '§' => WORD_LETTERS,
        letter if letter.is_numeric() => WORD_LETTERS,
        _ => 1,
    }
}

/// Where to end the first piece of `text`: a byte offset on a character border, more than 0.
fn cut(text: &str, limit: usize) -> usize {
    // The last place of each kind within the limit; better kinds first.
    let (mut sentence, mut clause, mut blank, mut anywhere) = (None, None, None, None);
    let mut length = 0;
    let mut before = None;
    for (at, letter) in text.char_indices() {
        if let Some(last) = before {
            if !joined(last, letter) {
                anywhere = Some(at);
            }
            match Border::between(&text[..at], last, &text[at..]) {
                Some(Border::Sentence) => sentence = Some(at),
                Some(Border::Clause) => clause = Some(at),
                Some(Border::Blank) => blank = Some(at),
                None => {}
            }
        }
        length += weight(letter);
        if length > limit {
            let first_letter = text.chars().next().map_or(0, char::len_utf8);
            return sentence.or(clause).or(blank).or(anywhere).unwrap_or(at).max(first_letter);
        }
        before = Some(letter);
    }
    text.len()
}

/// What kind of place lies between two characters, if one to cut at.
enum Border {
    Sentence,
    Clause,
    Blank,
}

impl Border {
    fn between(before: &str, last: char, after: &str) -> Option<Self> {
        let next = after.chars().next()?;
        if last.is_whitespace() {
            return None;
        }
        if !next.is_whitespace() {
            return Self::without_blank(last, next);
        }
        // Quotes and brackets close after what ends the sentence.
        let words = before.trim_end_matches(is_closer);
        let blanks = &after[..after.len() - after.trim_start().len()];
        if blanks.matches('\n').count() > 1 {
            return Some(Self::Sentence);
        }
        let starts = after.trim_start().trim_start_matches(is_opener).chars().next();
        // Text that goes on in lower case goes on.
        let goes_on = starts.is_some_and(char::is_lowercase);
        match words.chars().next_back() {
            Some('.') if goes_on || is_abbreviation(words) => Some(Self::Blank),
            Some('!' | '?' | '…') if goes_on => Some(Self::Clause),
            Some('.' | '!' | '?' | '…' | '؟' | '۔' | '।' | '॥') => Some(Self::Sentence),
            Some(mark) if is_wide_stop(mark) => Some(Self::Sentence),
            Some(',' | ';' | ':' | '–' | '—' | '،' | '؛') => Some(Self::Clause),
            _ if blanks.contains('\n') => Some(Self::Clause),
            _ => Some(Self::Blank),
        }
    }

    /// Scripts that write no blanks, and dashes.
    fn without_blank(last: char, next: char) -> Option<Self> {
        let closes = is_closer(next) || is_wide_stop(next) || is_wide_comma(next);
        match last {
            _ if closes => None,
            '」' | '』' => Some(Self::Clause),
            last if is_wide_stop(last) => Some(Self::Sentence),
            last if is_wide_comma(last) || last == '—' => Some(Self::Clause),
            _ => None,
        }
    }
}

fn is_wide_stop(letter: char) -> bool {
    matches!(letter, '。' | '！' | '？' | '｡' | '．')
}

fn is_wide_comma(letter: char) -> bool {
    matches!(letter, '，' | '、' | '；' | '：' | '､')
}

fn is_closer(letter: char) -> bool {
    matches!(
        letter,
        '"' | '\'' | ')' | ']' | '}' | '”' | '’' | '»' | '›' | '」' | '』' | '）' | '】' | '*' | '_'
    )
}

fn is_opener(letter: char) -> bool {
    matches!(letter, '"' | '\'' | '(' | '[' | '{' | '“' | '‘' | '„' | '«' | '‹' | '¿' | '¡' | '*' | '_')
}

/// Whether the full stop that ends `words` ends no sentence: after "Dr", an initial, "e.g", or the number of a list item.
fn is_abbreviation(words: &str) -> bool {
    const ABBREVIATIONS: [&str; 60] = [
        "abb", "abs", "adm", "approx", "apr", "art", "aug", "ave", "bzw", "ca", "capt", "cf", "co", "col",
        "corp", "dec", "dept", "dipl", "dr", "ed", "est", "etc", "evtl", "feb", "fig", "ft", "gen", "gov",
        "hon", "inc", "ing", "jan", "jr", "jul", "jun", "lt", "ltd", "max", "min", "mme", "mr", "mrs", "ms",
        "mt", "nov", "nr", "oct", "pp", "prof", "rev", "sen", "sep", "sgt", "sr", "sra", "st", "str", "usw",
        "vol", "vs",
    ];
    let words = words.trim_end_matches('.');
    let start = words.rfind(|letter: char| letter.is_whitespace() || is_opener(letter));
    let word = &words[start.map_or(0, |at| at + words[at..].chars().next().map_or(0, char::len_utf8))..];
    let mut letters = word.chars();
    match (letters.next(), letters.next()) {
        (None, _) => false,
        // An initial; "I" is a word.
        (Some(letter), None) if letter.is_alphabetic() => letter != 'I',
        (Some(_), _) if word.chars().all(|letter| letter.is_ascii_digit()) => {
            // At the start of a line it numbers an item.
            word.len() <= 2
                && words[..words.len() - word.len()]
                    .trim_end_matches([' ', '\t'])
                    .chars()
                    .next_back()
                    .is_none_or(|letter| letter == '\n')
        }
        _ => {
            let inner_stop =
                word.contains('.') && word.chars().all(|letter| letter.is_alphabetic() || letter == '.');
            inner_stop || ABBREVIATIONS.binary_search(&word.to_lowercase().as_str()).is_ok()
        }
    }
}

/// Whether two characters are drawn as one, near enough to the grapheme clusters of Unicode (UAX 29): marks, joiners, skin
/// tones, flags, Hangul syllables.
fn joined(last: char, next: char) -> bool {
    const ZERO_WIDTH_JOINER: char = '\u{200D}';
    let flag = |letter: char| matches!(letter, '\u{1F1E6}'..='\u{1F1FF}');
    let mark = matches!(next,
        '\u{0300}'..='\u{036F}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05BD}' | '\u{064B}'..='\u{065F}'
        | '\u{093A}'..='\u{093C}' | '\u{093E}'..='\u{094F}' | '\u{0E31}' | '\u{0E33}'..='\u{0E3A}' | '\u{0E47}'..='\u{0E4E}'
        | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{200C}' | ZERO_WIDTH_JOINER | '\u{20D0}'..='\u{20FF}'
        | '\u{3099}' | '\u{309A}' | '\u{FE00}'..='\u{FE0F}' | '\u{FE20}'..='\u{FE2F}' | '\u{1F3FB}'..='\u{1F3FF}'
        | '\u{E0020}'..='\u{E007F}');
    let hangul = matches!(next, '\u{1160}'..='\u{11FF}');
    mark || hangul || last == ZERO_WIDTH_JOINER || (flag(last) && flag(next))
}
