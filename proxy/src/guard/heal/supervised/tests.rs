use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// A program with one engine, whose behaviour a test sets.
#[derive(Clone, Default)]
struct Program(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    starts: u32,
    life: Option<Life>,
    /// What it was told, in order.
    told: Vec<&'static str>,
    ignores_sigterm: bool,
    ignores_sigkill: bool,
    /// Starts the engine again by itself as soon as it ends.
    restarts: bool,
    ends_politely: Option<Next>,
    refuses_to_start: bool,
    unreachable: bool,
    log: Option<&'static str>,
}

impl Program {
    fn running() -> Self {
        let program = Self::default();
        program.0.lock().begin();
        program
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.lock());
    }

    fn told(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().told)
    }

    async fn supervised(&self) -> Result<Supervised, Error> {
        let repair = config::Repair {
            grace: Duration::from_secs(1),
            stuck_after: Duration::from_secs(30),
            ..config::Repair::default()
        };
        let inner = self.0.clone();
        let log: ReadLog = Arc::new(move |key| {
            let log = inner.lock().log;
            Box::pin(std::future::ready(log.map(|log| format!("{key} says {log}"))))
        });
        Supervised::start("parakeet-0", self.clone(), &repair, log).await
    }
}

impl Inner {
    fn begin(&mut self) {
        self.starts += 1;
        self.life = Some(Life::Running);
    }

    fn end(&mut self) {
        self.life = Some(Life::Exited);
        if self.restarts {
            self.begin();
        }
    }
}

impl Supervisor for Program {
    async fn look(&mut self) -> Result<Option<Instance>, Error> {
        let inner = self.0.lock();
        if inner.unreachable {
            return Err(Error::Stopping);
        }
        Ok(inner.life.map(|life| Instance { key: format!("run {}", inner.starts), life }))
    }

    async fn changed(&mut self) {
        std::future::pending().await
    }

    async fn terminate(&mut self, _instance: &Instance) -> Result<Next, Error> {
        let mut inner = self.0.lock();
        inner.told.push("terminate");
        let next = inner.ends_politely.unwrap_or(Next::Start);
        if !inner.ignores_sigterm {
            inner.end();
            if next == Next::Await {
                inner.begin();
            }
        }
        Ok(next)
    }

    async fn kill(&mut self, _instance: &Instance) -> Result<(), Error> {
        let mut inner = self.0.lock();
        inner.told.push("kill");
        if !inner.ignores_sigkill {
            inner.end();
        }
        Ok(())
    }

    async fn start(&mut self) -> Result<(), Error> {
        let mut inner = self.0.lock();
        inner.told.push("start");
        if !inner.refuses_to_start {
            inner.begin();
        }
        Ok(())
    }
}

fn running(key: &str) -> Instance {
    Instance { key: key.to_owned(), life: Life::Running }
}

async fn restart(engine: &Supervised, key: &str, kill: Kill) -> Result<(), Error> {
    engine.restart(key.to_owned(), kill, String::new()).await
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_engines_log_says_why_it_ended() {
    let program = Program::running();
    program.set(|inner| inner.log = Some("no kernel image is available for execution on the device"));
    let engine = program.supervised().await.unwrap();
    engine.recognise(Arc::new(Catalogue::new(&[])));
    assert_eq!(engine.last_words(), LastWords::default());
    assert!(engine.end_of_log().await.unwrap().starts_with("run 1 says no kernel image"));
    program.set(|inner| inner.life = Some(Life::Exited));
    let mut lives = engine.instance();
    lives.wait_for(|instance| instance.life == Life::Exited).await.unwrap();
    assert_eq!(engine.last_words().finding.unwrap().0, contract::Class::Environment);
}

#[tokio::test(start_paused = true)]
async fn a_running_engine_is_taken_over_and_a_stopped_one_is_started() {
    let program = Program::running();
    let engine = program.supervised().await.unwrap();
    assert_eq!(*engine.instance().borrow(), running("run 1"));
    assert!(program.told().is_empty());

    let program = Program::running();
    program.set(Inner::end);
    let engine = program.supervised().await.unwrap();
    assert_eq!(*engine.instance().borrow(), running("run 2"));
    assert_eq!(program.told(), ["start"]);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_once_asks_for_nothing_first() {
    let program = Program::running();
    let engine = program.supervised().await.unwrap();
    restart(&engine, "run 1", Kill::AtOnce).await.unwrap();
    assert_eq!(program.told(), ["kill", "start"]);
    assert_eq!(*engine.instance().borrow(), running("run 2"));
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_becomes_a_kill_after_the_grace() {
    let program = Program::running();
    let engine = program.supervised().await.unwrap();
    restart(&engine, "run 1", Kill::Graceful).await.unwrap();
    assert_eq!(program.told(), ["terminate", "start"]);

    program.set(|program| program.ignores_sigterm = true);
    let ordered = Instant::now();
    restart(&engine, "run 2", Kill::Graceful).await.unwrap();
    assert_eq!(program.told(), ["terminate", "kill", "start"]);
    assert!(ordered.elapsed() >= Duration::from_secs(1));
    assert_eq!(*engine.instance().borrow(), running("run 3"));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_restarts_by_itself_is_not_asked_to_start() {
    let program = Program::running();
    program.set(|program| program.ends_politely = Some(Next::Await));
    let engine = program.supervised().await.unwrap();
    restart(&engine, "run 1", Kill::Graceful).await.unwrap();
    assert_eq!(program.told(), ["terminate"]);

    program.set(|program| program.restarts = true);
    restart(&engine, "run 2", Kill::AtOnce).await.unwrap();
    assert_eq!(program.told(), ["kill"]);
    assert_eq!(*engine.instance().borrow(), running("run 3"));
}

#[tokio::test(start_paused = true)]
async fn a_late_order_does_nothing_even_before_the_change_was_seen() {
    let program = Program::running();
    let engine = program.supervised().await.unwrap();
    program.set(Inner::begin);
    assert!(matches!(restart(&engine, "run 1", Kill::AtOnce).await, Err(Error::Late)));
    assert!(program.told().is_empty());
    assert_eq!(*engine.instance().borrow(), running("run 2"));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_ends_by_itself_is_reported_and_started_on_order() {
    let program = Program::running();
    let engine = program.supervised().await.unwrap();
    program.set(Inner::end);
    let mut instance = engine.instance();
    let seen = instance.wait_for(|instance| instance.life == Life::Exited).await.unwrap().clone();
    assert_eq!(seen.key, "run 1");
    restart(&engine, "run 1", Kill::Graceful).await.unwrap();
    assert_eq!(program.told(), ["start"]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_survives_sigkill_is_stuck_until_it_ends() {
    let program = Program::running();
    program.set(|program| program.ignores_sigkill = true);
    let engine = program.supervised().await.unwrap();
    assert!(matches!(restart(&engine, "run 1", Kill::AtOnce).await, Err(Error::Stuck)));
    let mut instance = engine.instance();
    assert_eq!(instance.borrow_and_update().life, Life::Stuck);
    sleep(3 * POLL).await;
    assert!(!instance.has_changed().unwrap(), "it is still known as stuck");
    program.set(Inner::end);
    instance.wait_for(|instance| instance.life == Life::Exited).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_come_back_is_an_error() {
    let program = Program::running();
    program.set(|program| program.refuses_to_start = true);
    let engine = program.supervised().await.unwrap();
    assert!(matches!(restart(&engine, "run 1", Kill::AtOnce).await, Err(Error::Unstarted(_))));
    assert_eq!(engine.instance().borrow().life, Life::Exited);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_be_reached_changes_nothing_and_one_without_the_engine_has_ended_it() {
    let program = Program::running();
    let engine = program.supervised().await.unwrap();
    program.set(|program| program.unreachable = true);
    sleep(3 * POLL).await;
    assert_eq!(*engine.instance().borrow(), running("run 1"));
    assert!(restart(&engine, "run 1", Kill::AtOnce).await.is_err());
    program.set(|program| (program.unreachable, program.life) = (false, None));
    sleep(3 * POLL).await;
    assert_eq!(engine.instance().borrow().life, Life::Exited);
}
