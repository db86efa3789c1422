//! Text as it is to be spoken: without the marks of Markdown, emoji, and addresses that no one reads aloud.
//!
//! Engines stumble over such marks, or spell them. No word is lost: of a link its text stays, of an address its host.

use std::borrow::Cow;

/// The text without what is not spoken.
pub fn plain(text: &str) -> Cow<'_, str> {
    let marks = |letter: char| "#*_`~[]<>{}|\\".contains(letter) || is_picture(letter);
    if !text.contains(marks) && !text.contains("://") && !text.contains("www.") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut fenced = false;
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
            continue;
        }
        if !fenced && is_rule(trimmed) {
            out.push_str(end);
            continue;
        }
        let body = if fenced { line } else { without_lead(trimmed) };
        let spoken = words(&inline(body));
        out.push_str(&spoken);
        // What stands alone is a sentence of its own: a heading or a row must not run into the next line.
        if body.len() < trimmed.len() && spoken.ends_with(char::is_alphanumeric) {
            out.push('.');
        }
        out.push_str(end);
    }
    Cow::Owned(out)
}

/// A line of rules alone, `---`, `***` or `|---|---|`.
fn is_rule(line: &str) -> bool {
    let line = line.trim_end();
    line.len() >= 3
        && line.chars().all(|letter| "-*_=|: ".contains(letter))
        && line.contains(['-', '*', '_', '='])
}

/// A line without what makes it a heading, an item or a quotation.
fn without_lead(line: &str) -> &str {
    let mut rest = line;
    while let Some(quoted) = rest.strip_prefix('>') {
        rest = quoted.trim_start();
    }
    let heading = rest.trim_start_matches('#');
    let depth = rest.len() - heading.len();
    if (1..=6).contains(&depth) && heading.starts_with(' ') {
        return heading.trim();
    }
    let item = ["- ", "* ", "+ "].iter().find_map(|mark| rest.strip_prefix(mark));
    let item =
        item.map(|item| item.strip_prefix("[ ] ").or_else(|| item.strip_prefix("[x] ")).unwrap_or(item));
    item.unwrap_or(rest).trim()
}

/// A line with the texts of links and images in their place, and without marks, pictures and tags.
fn inline(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        match letter {
            '!' if after.starts_with('[') && link(after).is_some() => rest = after,
            '[' => match link(rest) {
                Some((text, behind)) => {
                    out.push_str(&inline(text));
                    rest = behind;
                }
                // A footnote, `[12]`, or a word in brackets.
                None => match after.split_once(']') {
                    Some((note, behind))
                        if !note.is_empty() && note.bytes().all(|byte| byte.is_ascii_digit()) =>
                    {
                        rest = behind
                    }
                    _ => rest = after,
                },
            },
            '<' => match after.split_once('>') {
                Some((tag, behind)) if is_tag(tag) => {
                    if tag.contains("://") || tag.contains('@') {
                        out.push_str(&inline(tag));
                    }
                    rest = behind;
                }
                _ => {
                    out.push(' ');
                    rest = after;
                }
            },
            '\\' if after.starts_with(|letter: char| letter.is_ascii_punctuation()) => rest = after,
            '*' | '`' | '~' | '{' | '}' | ']' | '>' => rest = after,
            '_' => {
                let inner = out.ends_with(char::is_alphanumeric) && after.starts_with(char::is_alphanumeric);
                if inner {
                    out.push(' ');
                }
                rest = after;
            }
            '|' => {
                let ends = out.trim_end().is_empty() || after.trim().is_empty();
                out.push_str(if ends { " " } else { ", " });
                rest = after;
            }
            letter if is_picture(letter) => {
                out.push(' ');
                rest = after;
            }
            letter => {
                out.push(letter);
                rest = after;
            }
        }
    }
    out
}

/// The text of `[text](address)`, and what is behind it.
fn link(line: &str) -> Option<(&str, &str)> {
    let (text, rest) = line.strip_prefix('[')?.split_once("](")?;
    let (_, behind) = rest.split_once(')')?;
    (!text.contains(['[', ']'])).then_some((text, behind))
}

/// Whether what is between `<` and `>` is a tag or an address: `br/`, `/b`, `https://x`.
fn is_tag(tag: &str) -> bool {
    let first = tag.trim_start_matches('/').chars().next();
    first.is_some_and(char::is_alphabetic) && !tag.contains('<') && tag.len() <= 200
}

/// Words with one space between, and hosts in place of addresses.
fn words(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for word in line.split_whitespace() {
        let glued = out.is_empty() || word.chars().all(|letter| ",.;:!?".contains(letter));
        if !glued {
            out.push(' ');
        }
        out.push_str(&address(word));
    }
    out
}

/// A word, or the host of an address with the marks around it.
fn address(word: &str) -> Cow<'_, str> {
    let Some(at) = ["https://", "http://", "www."].iter().filter_map(|start| word.find(start)).min() else {
        return Cow::Borrowed(word);
    };
    let (before, address) = word.split_at(at);
    let bare = address.trim_end_matches(|letter: char| ",.;:!?)\"'".contains(letter));
    let after = &address[bare.len()..];
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let host = bare.split(['/', '?', '#', ':']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    Cow::Owned(format!("{before}{}{after}", host.strip_prefix("www.").unwrap_or(host)))
}

/// Emoji, arrows, dingbats, and the marks that vary and join them.
fn is_picture(letter: char) -> bool {
    matches!(letter as u32,
        0x2190..=0x21FF | 0x2300..=0x23FF | 0x2460..=0x24FF | 0x2500..=0x27BF | 0x2900..=0x297F | 0x2B00..=0x2BFF
        | 0x1F000..=0x1FAFF | 0xFE00..=0xFE0F | 0x200D | 0x20E3 | 0xE0020..=0xE007F)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_are_left_out_and_words_stay() {
        for (text, spoken) in [
            ("# Good *morning*\nAll is **well**.", "Good morning.\nAll is well."),
            ("- one\n- [x] two\n1. three", "one.\ntwo.\n1. three"),
            ("> He said `yes` and ~~no~~ maybe", "He said yes and no maybe."),
            ("See [the plan](https://example.com/a?b=c) now", "See the plan now"),
            ("![A cat](cat.png) sleeps[1]", "A cat sleeps"),
            ("Visit https://www.example.com/a/b?c=1, please.", "Visit example.com, please."),
            ("Mail <ada@example.com> or <b>call</b>", "Mail ada@example.com or call"),
            ("Well done 🎉👍🏽!", "Well done!"),
            ("| Name | Age |\n|---|---|\n| Ada | 36 |", "Name, Age\n\nAda, 36"),
            ("a snake_case name, 3 * 4 and {x}", "a snake case name, 3 4 and x"),
            ("```rust\nlet x = 1;\n```\nDone", "let x = 1;\nDone"),
            ("\\*literal\\*", "literal"),
            ("a < b", "a b"),
            ("<Ⰰ*@>", "Ⰰ@"),
        ] {
            assert_eq!(plain(text), spoken, "{text:?}");
        }
    }

    #[test]
    fn plain_text_is_untouched() {
        for text in ["Good morning.", "It's 5 - 3 = 2, isn't it? (Yes.)\n\nÄußerst schön", "早上好。"]
        {
            assert!(matches!(plain(text), Cow::Borrowed(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_nothing_is_left_to_clean_of_its_marks(text in "\\PC{0,80}") {
            let spoken = plain(&text);
            prop_assert!(matches!(spoken, Cow::Borrowed(_)) || !spoken.contains(['`', '*', '{', '}', '|']), "{spoken}");
        }
    }
}
