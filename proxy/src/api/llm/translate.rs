//! Translations by a language model: several texts in one call, and none twice.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::answer;
use crate::api::Context;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Message, Role};
use crate::job::language;
use contract::Capability;

/// Texts of one call, and their characters.
const BATCH: usize = 40;
const BATCH_CHARACTERS: usize = 4_000;
/// Texts longer than this are not kept, bytes.
const MAX_KEPT: usize = 16 * 1024;

/// Translations that were made, by language and text. Cloning shares them.
#[derive(Clone, Default)]
pub struct Cache {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    known: HashMap<(String, String), (String, u64)>,
    /// Counts uses: the least recently used one goes first.
    clock: u64,
}

impl Cache {
    fn get(&self, target: &str, text: &str) -> Option<String> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let (translation, used) = kept.known.get_mut(&(target.to_owned(), text.to_owned()))?;
        *used = now;
        Some(translation.clone())
    }

    fn put(&self, target: &str, text: &str, translation: &str, max: usize) {
        if max == 0 || text.len() > MAX_KEPT || translation.len() > MAX_KEPT {
            return;
        }
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        while kept.known.len() >= max {
            let oldest = kept.known.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            kept.known.remove(&oldest);
        }
        kept.known.insert((target.to_owned(), text.to_owned()), (translation.to_owned(), now));
    }
}

/// The code of a language that is to be translated to, without its region: `fr`.
///
/// # Errors
/// A 400 that names the parameter.
pub fn target(param: &'static str, named: &str) -> Result<String, Error> {
    match language::requested(named) {
        Ok(Some(tag)) => Ok(language::code(&tag)),
        Ok(None) | Err(_) => Err(Error::param(param, format!("{param} must be a code such as fr or pt-BR"))),
    }
}

/// The texts in another language, in their order.
///
/// # Errors
/// There is no language model; what it showed.
pub async fn translate(
    context: &Context,
    request_id: &RequestId,
    texts: &[String],
    target: &str,
) -> Result<Vec<String>, Error> {
    super::check(context)?;
    let max = context.config.get().gateway.conversation.max_translations;
    let mut done: Vec<Option<String>> = texts
        .iter()
        .map(|text| match text.trim() {
            "" => Some(String::new()),
            text => context.translations.get(target, text),
        })
        .collect();
    let open: Vec<usize> = (0..texts.len()).filter(|at| done.get(*at).is_some_and(Option::is_none)).collect();
    for batch in batches(&open, |at| texts.get(at).map_or(0, |text| text.chars().count())) {
        let given: Vec<&str> = batch.iter().filter_map(|at| texts.get(*at)).map(|text| text.trim()).collect();
        let made = match given.as_slice() {
            [one] => vec![single(context, request_id, one, target).await?],
            many => match list(context, request_id, many, target).await? {
                Some(made) => made,
                // The model does not keep to the form: one text at a time it cannot go wrong.
                None => {
                    let mut made = Vec::with_capacity(many.len());
                    for one in many {
                        made.push(single(context, request_id, one, target).await?);
                    }
                    made
                }
            },
        };
        for ((at, given), made) in batch.iter().zip(given).zip(made) {
            context.translations.put(target, given, &made, max);
            if let Some(done) = done.get_mut(*at) {
                *done = Some(made);
            }
        }
    }
    Ok(done.into_iter().map(Option::unwrap_or_default).collect())
}

/// Cuts places into runs that fit into one call.
fn batches(open: &[usize], characters: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut length = 0;
    for at in open {
        let more = characters(*at);
        let fits = length + more <= BATCH_CHARACTERS;
        match batches.last_mut().filter(|batch| fits && batch.len() < BATCH) {
            Some(batch) => {
                batch.push(*at);
                length += more;
            }
            None => {
                batches.push(vec![*at]);
                length = more;
            }
        }
    }
    batches
}

async fn single(
    context: &Context,
    request_id: &RequestId,
    text: &str,
    target: &str,
) -> Result<String, Error> {
    let system = format!(
        "You are a translator. Translate the text into {}. Reply with the translation alone.",
        language::english_name(target)
    );
    let made = ask(context, request_id, system, text.to_owned()).await?;
    Ok(made.trim().to_owned())
}

/// `None` when the answer is not a list of as many texts.
async fn list(
    context: &Context,
    request_id: &RequestId,
    texts: &[&str],
    target: &str,
) -> Result<Option<Vec<String>>, Error> {
    let system = format!(
        "You are a translator. Translate each text of the JSON array into {}. They follow each other in one recording. Reply \
         with a JSON array of exactly {} texts in the same order, and with nothing else.",
        language::english_name(target),
        texts.len()
    );
    let given = serde_json::Value::from(texts).to_string();
    let made = ask(context, request_id, system, given).await?;
    Ok(read_list(&made).filter(|made| made.len() == texts.len()))
}

/// The list in an answer, which may have words or a fence around it.
fn read_list(answer: &str) -> Option<Vec<String>> {
    let (begin, end) = (answer.find('[')?, answer.rfind(']')?);
    serde_json::from_str(answer.get(begin..=end)?).ok()
}

async fn ask(
    context: &Context,
    request_id: &RequestId,
    system: String,
    user: String,
) -> Result<String, Error> {
    let chat = Chat {
        messages: vec![Message::new(Role::System, system), Message::new(Role::User, user)],
        temperature: Some(0.0),
        ..Chat::default()
    };
    let route = context.route(request_id, None, Capability::Llm)?;
    Ok(answer(context, request_id, route, chat).await?.whole().await?.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_found_in_what_models_say_around_them() {
        let expected = Some(vec!["a".to_owned(), "b".to_owned()]);
        for answer in [r#"["a","b"]"#, "Here it is:\n```json\n[\"a\",\n \"b\"]\n```"] {
            assert_eq!(read_list(answer), expected, "{answer}");
        }
        for answer in ["", "a, b", "[1,2]", "]["] {
            assert_eq!(read_list(answer), None, "{answer}");
        }
    }

    #[test]
    fn calls_have_so_many_texts_and_characters() {
        let open: Vec<usize> = (0..100).collect();
        let sizes = |characters: usize| -> Vec<usize> {
            batches(&open, |_| characters).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(1), [40, 40, 20]);
        assert_eq!(sizes(2_000), [2; 50]);
        assert_eq!(sizes(9_000), [1; 100]);
        assert!(batches(&[], |_| 1).is_empty());
    }

    #[test]
    fn so_many_translations_are_kept_and_the_least_used_go_first() {
        let cache = Cache::default();
        cache.put("fr", "a", "A", 2);
        cache.put("fr", "b", "B", 2);
        assert_eq!(cache.get("fr", "a").as_deref(), Some("A"));
        cache.put("de", "a", "Ä", 2);
        assert_eq!((cache.get("fr", "a").as_deref(), cache.get("fr", "b")), (Some("A"), None));
        assert_eq!(cache.get("de", "a").as_deref(), Some("Ä"));
        cache.put("de", "c", "C", 0);
        assert_eq!(cache.get("de", "c"), None);
    }

    #[test]
    fn a_target_is_a_language() {
        assert_eq!(target("target_lang", "pt-BR").unwrap(), "pt");
        assert_eq!(target("target_lang", "klingon").unwrap_err().param_name(), Some("target_lang"));
    }
}
