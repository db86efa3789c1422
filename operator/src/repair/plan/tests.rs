//! The record of repairs: nothing of it is lost.

use super::*;

fn record(n: i64, outcome: Outcome) -> RepairRecord {
    let at = MicroTime(Timestamp::from_second(1_800_000_000 + n).unwrap_or_default());
    RepairRecord {
        engine: "e".into(),
        pod: "p".into(),
        pod_uid: format!("u{n}"),
        node: None,
        template: None,
        instance: "i".into(),
        rung: Rung::Restart,
        class: None,
        attempt: 0,
        ordered: at.clone(),
        outcome,
        ended: (outcome != Outcome::Pending).then_some(at),
    }
}

fn status(total: i64, records: Vec<RepairRecord>) -> RepairStatus {
    RepairStatus { total, records, ..RepairStatus::default() }
}

#[test]
fn nothing_recorded_is_lost_to_an_older_view() {
    let own = status(3, vec![record(1, Outcome::Recovered), record(3, Outcome::Pending)]);
    let seen = status(2, vec![record(1, Outcome::Pending), record(2, Outcome::Failed)]);
    let merged = merge(&own, Some(&seen));
    assert_eq!(merged.total, 3);
    let outcomes: Vec<Outcome> = merged.records.iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, [Outcome::Recovered, Outcome::Failed, Outcome::Pending]);
    assert_eq!(merge(&own, None), own);
    assert_eq!(merge(&merged, Some(&seen)), merged);
}

#[test]
fn trimming_keeps_the_newest_and_all_pending_ones() {
    let mut records = vec![record(0, Outcome::Pending)];
    records.extend((1..=60).map(|n| record(n, Outcome::Recovered)));
    trim(&mut records);
    assert_eq!(records.len(), MAX_RECORDS);
    assert_eq!(records[0].outcome, Outcome::Pending);
    assert_eq!(records[1].pod_uid, "u12");
}
