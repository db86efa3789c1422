//! The search for the texts of errors that show a dead or faulty GPU context, built from the catalogue and the configuration.

use aho_corasick::{AhoCorasick, BuildError};

use contract::Class;
use contract::signature::BUILT_IN;

use crate::config::SignatureRule;

/// Bytes of a body that are searched.
pub const SEARCHED_BYTES: usize = 64 * 1024;

/// A ready-made search for all signatures. Build it once.
#[derive(Debug)]
pub struct Catalogue {
    entries: Vec<Entry>,
    /// Finds all texts in one pass; pattern numbers are indices of `entries`. `None` when it could not be built.
    search: Option<AhoCorasick>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    class: Class,
}

impl Catalogue {
    /// The built-in signatures behind those of the configuration, which win.
    pub fn new(rules: &[SignatureRule]) -> Self {
        let configured = rules.iter().filter(|rule| !rule.contains.trim().is_empty()).map(|rule| {
            let id = format!("config:{}", rule.contains.trim());
            (Entry { id, class: rule.class }, rule.contains.as_str())
        });
        let built_in = BUILT_IN
            .iter()
            .map(|known| (Entry { id: known.id.to_owned(), class: known.class }, known.contains));
        let (entries, texts): (Vec<Entry>, Vec<&str>) = configured.chain(built_in).unzip();
        let search = search(&texts)
            .inspect_err(|error| tracing::error!(%error, texts = texts.len(), "no signature will be found"));
        Self { entries, search: search.ok() }
    }

    /// The signature in the first [`SEARCHED_BYTES`] of `body` that stands first in the table, wherever it stands in the
    /// text: its class and id.
    pub fn find(&self, body: &[u8]) -> Option<(Class, &str)> {
        self.first(self.matches(body))
    }

    /// As [`Catalogue::find`], of the signatures none of whose texts stand in `known`.
    pub fn find_new(&self, body: &[u8], known: &[u8]) -> Option<(Class, &str)> {
        let ids: Vec<&str> = self.matches(known).filter_map(|at| Some(&*self.entries.get(at)?.id)).collect();
        let is_new = |at: &usize| self.entries.get(*at).is_some_and(|entry| !ids.contains(&&*entry.id));
        self.first(self.matches(body).filter(is_new))
    }

    /// Places in the table of the texts that stand in `body`.
    fn matches(&self, body: &[u8]) -> impl Iterator<Item = usize> {
        let text = body.get(..SEARCHED_BYTES).unwrap_or(body);
        let search = self.search.iter();
        search
            .flat_map(move |search| search.find_overlapping_iter(text))
            .map(|found| found.pattern().as_usize())
    }

    fn first(&self, matches: impl Iterator<Item = usize>) -> Option<(Class, &str)> {
        let entry = self.entries.get(matches.min()?)?;
        Some((entry.class, &entry.id))
    }
}

/// Fails only for more texts than the automaton can number, about two billion bytes of them.
fn search(texts: &[&str]) -> Result<AhoCorasick, BuildError> {
    AhoCorasick::builder().ascii_case_insensitive(true).build(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_signature_is_reachable() {
        let catalogue = Catalogue::new(&[]);
        for known in BUILT_IN {
            let (class, id) = catalogue.find(known.contains.as_bytes()).unwrap();
            assert_eq!((class, id), (known.class, known.id), "{} is shadowed", known.contains);
        }
    }

    #[test]
    fn a_configured_text_wins_over_a_built_in_one() {
        let rule = SignatureRule { contains: "CUBLAS_STATUS_internal".into(), class: Class::Sticky };
        let catalogue = Catalogue::new(&[rule]);
        let (class, id) = catalogue.find(b"cublas_status_internal_error").unwrap();
        assert_eq!((class, id), (Class::Sticky, "config:CUBLAS_STATUS_internal"));
    }

    #[test]
    fn a_blank_rule_matches_nothing() {
        let rule = SignatureRule { contains: " ".into(), class: Class::Sticky };
        assert_eq!(Catalogue::new(&[rule]).find(b"all is well"), None);
    }

    #[test]
    fn the_search_is_bounded() {
        let mut body = vec![b' '; SEARCHED_BYTES];
        body.extend_from_slice(b"CUDA out of memory");
        assert_eq!(Catalogue::new(&[]).find(&body), None);
    }

    #[test]
    fn the_tables_order_decides_not_the_place_in_the_text() {
        let catalogue = Catalogue::new(&[]);
        let body = b"CUBLAS_STATUS_INTERNAL_ERROR, then an Illegal Memory Access was encountered";
        assert_eq!(catalogue.find(body), Some((Class::Sticky, "illegal_address")));
    }

    #[test]
    fn what_the_request_says_too_is_not_new() {
        let catalogue = Catalogue::new(&[]);
        let body = b"unable to say 'CUDA error: misaligned address'";
        assert_eq!(catalogue.find_new(body, b"please say: cuda ERROR: Misaligned Address"), None);
        assert_eq!(catalogue.find_new(body, b"good morning"), Some((Class::Sticky, "misaligned_address")));
        let both = b"unable to say 'CUDA error: misaligned address': CUDA error: unspecified launch failure";
        let new = catalogue.find_new(both, b"CUDA error: misaligned address");
        assert_eq!(new, Some((Class::Sticky, "launch_failure")));
    }

    /// Each text searched for by itself, in the table's order.
    fn one_by_one(body: &[u8]) -> Option<(Class, &'static str)> {
        let body = String::from_utf8_lossy(body).to_ascii_lowercase();
        let known = BUILT_IN.iter().find(|known| body.contains(&known.contains.to_ascii_lowercase()))?;
        Some((known.class, known.id))
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_one_search_for_each_text_finds(
            parts in proptest::collection::vec((0..BUILT_IN.len(), 0..60_usize, any::<bool>()), 0..5),
        ) {
            // Texts cut short, in other case and run together.
            let body: String = parts
                .iter()
                .map(|(at, cut, upper)| {
                    let text = BUILT_IN[*at].contains;
                    let text = &text[..text.len() - cut.saturating_sub(30).min(text.len())];
                    if *upper { text.to_ascii_uppercase() } else { text.to_owned() }
                })
                .collect();
            let catalogue = Catalogue::new(&[]);
            prop_assert_eq!(catalogue.find(body.as_bytes()), one_by_one(body.as_bytes()));
        }
    }
}
