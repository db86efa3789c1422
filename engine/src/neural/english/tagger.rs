//! Parts of speech (Penn Treebank) by an averaged perceptron, for words whose sound depends on them.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

/// The tables as they are published with the voice.
#[derive(Deserialize)]
pub struct Tagger {
    tags: Vec<String>,
    tagdict: HashMap<String, String>,
    vocab: HashSet<String>,
    weights: HashMap<String, HashMap<String, f32>>,
}

impl Tagger {
    /// The tag of each word.
    #[must_use]
    pub fn tags(&self, words: &[&str]) -> Vec<&str> {
        let mut context = vec!["-START2-".to_owned(), "-START-".to_owned()];
        context.extend(words.iter().map(|word| self.context(word)));
        context.extend(["-END-".to_owned(), "-END2-".to_owned()]);
        let (mut before, mut before2) = ("-START-", "-START2-");
        let mut tags = Vec::with_capacity(words.len());
        for (index, word) in words.iter().enumerate() {
            let known = self.tagdict.get(*word).map(String::as_str);
            let tag =
                known.unwrap_or_else(|| self.predict(&features(index, word, &context, before, before2)));
            tags.push(tag);
            (before2, before) = (before, tag);
        }
        tags
    }

    fn predict(&self, features: &[String]) -> &str {
        let mut scores: HashMap<&str, f32> = HashMap::new();
        for weights in features.iter().filter_map(|feature| self.weights.get(feature)) {
            for (tag, weight) in weights {
                *scores.entry(tag).or_default() += weight;
            }
        }
        if scores.is_empty() {
            return "NN";
        }
        let score = |tag: &str| scores.get(tag).copied().unwrap_or(0.0);
        let better = |a: &&String, b: &&String| score(a).total_cmp(&score(b)).then_with(|| a.cmp(b));
        self.tags.iter().max_by(better).map_or("NN", String::as_str)
    }

    /// A word as its neighbours see it: rare ones by their shape alone.
    fn context(&self, word: &str) -> String {
        let normal = normal(word);
        if self.vocab.contains(&normal) { normal } else { format!("<{}>", shape(word)) }
    }
}

fn normal(word: &str) -> String {
    let digits = word.chars().all(|sign| sign.is_ascii_digit());
    if word.contains('-') && !word.starts_with('-') {
        "!HYPHEN".to_owned()
    } else if digits && word.len() == 4 {
        "!YEAR".to_owned()
    } else if word.starts_with(|sign: char| sign.is_ascii_digit()) {
        "!DIGITS".to_owned()
    } else {
        word.to_lowercase()
    }
}

fn shape(word: &str) -> String {
    let all = |test: fn(char) -> bool| !word.is_empty() && word.chars().all(test);
    let rest_lower = word.chars().skip(1).all(char::is_lowercase);
    let one = word.chars().count() == 1;
    if all(char::is_alphabetic) {
        let capital = word.chars().next().is_some_and(char::is_uppercase);
        return if all(char::is_lowercase) {
            "x"
        } else if all(char::is_uppercase) {
            if one { "X1" } else { "XX" }
        } else if capital && rest_lower {
            "Xx"
        } else {
            "xX"
        }
        .to_owned();
    }
    if all(|sign| sign.is_ascii_digit()) {
        return "d".to_owned();
    }
    let kind = |sign: char| match sign {
        sign if sign.is_ascii_digit() => 'd',
        sign if sign.is_alphabetic() => 'x',
        sign => sign,
    };
    word.chars().take(4).map(kind).collect()
}

fn end(word: &str) -> &str {
    let start = word.char_indices().rev().nth(2).map_or(0, |(index, _)| index);
    &word[start..]
}

fn features(index: usize, word: &str, context: &[String], before: &str, before2: &str) -> Vec<String> {
    let at = |place: usize| context[place].as_str();
    let j = index + 2;
    vec![
        "b".to_owned(),
        format!("s3={}", end(word)),
        format!("p1={}", word.chars().take(1).collect::<String>()),
        format!("w={}", at(j)),
        format!("sh={}", shape(word)),
        if index == 0 { "i0" } else { "i+" }.to_owned(),
        format!("t-1={before}"),
        format!("t-2={before2}"),
        format!("t-12={before},{before2}"),
        format!("w-1={}", at(j - 1)),
        format!("s3-1={}", end(at(j - 1))),
        format!("w-2={}", at(j - 2)),
        format!("w+1={}", at(j + 1)),
        format!("s3+1={}", end(at(j + 1))),
        format!("w+2={}", at(j + 2)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_decide_where_the_dictionary_does_not() {
        let tagger: Tagger = serde_json::from_str(
            r#"{"tags":["NN","VB"],"tagdict":{"to":"TO"},"vocab":["to"],
                "weights":{"t-1=TO":{"VB":2.0,"NN":-1.0},"sh=x":{"NN":1.0}}}"#,
        )
        .unwrap();
        assert_eq!(tagger.tags(&["to", "walk", "home"]), ["TO", "VB", "NN"]);
        assert_eq!(
            ["Walk", "WALK", "I", "iPod", "12", "a1-b2"].map(shape),
            ["Xx", "XX", "X1", "xX", "d", "xd-x"]
        );
    }
}
