//! Keeps one stream open to the guard of every engine pod: pods are compared with streams, streams are opened by tasks of
//! their own, and read by this one.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use slab::Slab;
use speechstack_crds::SpeechStack;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Guards;
use super::set::Set;
use super::stream::{self, Backoff, Error, Open, Rest, Target};
use crate::owners::Owners;
use crate::pods::{EnginePod, Pods};

/// How often the set of pods is compared with the set of streams, and silent streams are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Wait after the kernel failed to say which sockets have bytes.
const REST: Duration = Duration::from_secs(1);

/// Streams that are being opened at a time: more than the guards of a few lost nodes, and fewer than all when the operator
/// starts, which would be the most that is ever in memory.
const PLACES: usize = 1024;

/// A guard that is followed.
struct Followed {
    target: Target,
    stream: Stream,
    /// The version of the pods in which it was there.
    version: u64,
}

/// Its stream.
enum Stream {
    /// A task opens it.
    Opening(AbortHandle),
    Open(Box<Open>),
}

/// A stream that a task has opened, for the guard of that number.
struct Opened {
    number: usize,
    target: Target,
    open: Box<Open>,
}

/// All streams.
struct Streams {
    guards: Guards,
    set: Set,
    followed: Slab<Followed>,
    /// The numbers by the pods' UIDs.
    numbers: HashMap<Arc<str>, usize>,
    opener: Opener,
    /// Streams that were left with bytes to read.
    unread: Vec<usize>,
}

/// What tasks that open streams need.
#[derive(Clone)]
struct Opener {
    guards: Guards,
    places: Arc<Semaphore>,
    opened: mpsc::UnboundedSender<Opened>,
}

/// Keeps one stream open to the guard of every engine pod of a stack that has an address, until cancelled.
pub async fn follow(guards: Guards, pods: Pods, owners: Owners, cancel: CancellationToken) {
    while let Err(error) = streams(&guards, &pods, &owners, &cancel).await {
        tracing::error!(%error, "unable to read the streams of guards; all are opened anew");
        if cancel.run_until_cancelled(tokio::time::sleep(REST)).await.is_none() {
            return;
        }
    }
}

/// Follows all guards until cancelled, or until the kernel fails to say which sockets have bytes.
async fn streams(
    guards: &Guards,
    pods: &Pods,
    owners: &Owners,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let (opened, mut inbox) = mpsc::unbounded_channel();
    let mut streams = Streams {
        guards: guards.clone(),
        set: Set::new()?,
        followed: Slab::new(),
        numbers: HashMap::new(),
        opener: Opener { guards: guards.clone(), places: Arc::new(Semaphore::new(PLACES)), opened },
        unread: Vec::new(),
    };
    let mut compared = None;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            () = cancel.cancelled() => break Ok(()),
            _ = look.tick() => {
                let version = Some((pods.version(), owners.version()));
                if compared != version {
                    streams.compare(pods, owners);
                    compared = version;
                }
                streams.end_silent();
            }
            Some(opened) = inbox.recv() => streams.take(opened),
            ready = streams.set.ready() => match ready {
                Ok(numbers) => numbers.into_iter().for_each(|number| streams.read(number)),
                Err(error) => break Err(error),
            },
            () = std::future::ready(()), if !streams.unread.is_empty() => {
                std::mem::take(&mut streams.unread).into_iter().for_each(|number| streams.read(number));
                tokio::task::yield_now().await;
            }
        }
    };
    streams.keep(|_| false);
    result
}

impl Streams {
    /// Starts and stops streams so that they match the pods.
    fn compare(&mut self, pods: &Pods, owners: &Owners) {
        let version = pods.version();
        pods.for_each(|stack, pod| {
            let Some(address) = guarded_at(pod) else { return };
            let known = self.numbers.get(&pod.uid).and_then(|number| self.followed.get_mut(*number));
            if let Some(known) = known.filter(|known| known.target.address == address) {
                known.version = version;
                return;
            }
            // The address is of the same object as the owner: a token never goes where another object points.
            if owners.is_of(stack, pod) {
                self.begin(stack, pod, address, version);
            }
        });
        self.keep(|followed| followed.version == version);
    }

    /// Follows a pod that is new or has a new address.
    fn begin(&mut self, stack: &Arc<ObjectRef<SpeechStack>>, pod: &EnginePod, address: IpAddr, version: u64) {
        let target = Target { stack: Arc::clone(stack), uid: Arc::clone(&pod.uid), address };
        if let Some(old) = self.numbers.remove(&pod.uid) {
            self.followed.try_remove(old).into_iter().for_each(|old| old.stream.end());
        }
        let entry = self.followed.vacant_entry();
        let number = entry.key();
        let stream = self.opener.open(&target, number, None);
        entry.insert(Followed { target, stream, version });
        self.numbers.insert(Arc::clone(&pod.uid), number);
    }

    /// Ends and forgets all others.
    fn keep(&mut self, stays: impl Fn(&Followed) -> bool) {
        let Self { guards, followed, numbers, .. } = self;
        numbers.retain(|uid, number| {
            let stays = followed.get(*number).is_some_and(&stays);
            if !stays && let Some(gone) = followed.try_remove(*number) {
                gone.stream.end();
                guards.forget(&gone.target.stack, uid);
            }
            stays
        });
    }

    /// A stream is open: it is read from now on.
    fn take(&mut self, Opened { number, target, mut open }: Opened) {
        // The pod may be gone or have a new address, and the number another's.
        let is_it =
            |one: &&mut Followed| one.target.uid == target.uid && one.target.address == target.address;
        let Some(followed) = self.followed.get_mut(number).filter(is_it) else { return };
        let added = self.set.add(&mut open.stream, number);
        followed.stream = Stream::Open(open);
        match added {
            Ok(()) => self.read(number),
            Err(error) => self.end(number, Err(Error::Connect(error))),
        }
    }

    fn read(&mut self, number: usize) {
        let Some(Followed { target, stream: Stream::Open(open), .. }) = self.followed.get_mut(number) else {
            return; // it ended after it was named
        };
        match open.read(&self.guards, target) {
            Ok(Rest::None) => {}
            Ok(Rest::More) => self.unread.push(number),
            Ok(Rest::End) => self.end(number, Ok(())),
            Err(error) => self.end(number, Err(error)),
        }
    }

    fn end_silent(&mut self) {
        let now = Instant::now();
        let is_silent = |one: &Followed| matches!(&one.stream, Stream::Open(open) if open.is_silent(now));
        let silent = self.followed.iter().filter(|(_, one)| is_silent(one)).map(|(number, _)| number);
        for number in silent.collect::<Vec<_>>() {
            self.end(number, Err(Error::Silent));
        }
    }

    /// A stream ended: it is opened again.
    fn end(&mut self, number: usize, result: Result<(), Error>) {
        let Some(followed) = self.followed.get_mut(number) else { return };
        let Stream::Open(open) = &followed.stream else { return };
        if let Err(error) = result {
            self.guards.failed(&followed.target, &error);
        }
        self.guards.lost(&followed.target.stack, &followed.target.uid);
        let again = Some(open.backoff);
        followed.stream = self.opener.open(&followed.target, number, again);
    }
}

impl Opener {
    /// Opens a stream in a task.
    fn open(&self, target: &Target, number: usize, again: Option<Backoff>) -> Stream {
        let (Self { guards, places, opened }, target) = (self.clone(), target.clone());
        let task = tokio::spawn(async move {
            let open = stream::open_at_last(&guards, &target, &places, again).await;
            // Closed only at the end of the term.
            let _ = opened.send(Opened { number, target, open });
        });
        Stream::Opening(task.abort_handle())
    }
}

impl Stream {
    /// Ends it.
    fn end(self) {
        match self {
            Self::Opening(task) => task.abort(),
            Self::Open(_) => {} // closed
        }
    }
}

/// Where the guard of a pod that runs is reached.
fn guarded_at(pod: &EnginePod) -> Option<IpAddr> {
    pod.address.filter(|_| pod.deleted.is_none() && !pod.ended)
}
