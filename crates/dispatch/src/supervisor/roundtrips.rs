//! What is written is read again, and nothing else is: messages, commands and records.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::message::{Attach, Attached, Held, LENGTH_BYTES, ToDaemon, ToSupervisor};
use super::record;
use crate::codec::Malformed;
use crate::executor::{
    Command, Ending, Exit, Failure, Limits, Output, Reason, Usage, User, Window,
};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn maybe<T: Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(some)
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|ms| Duration::from_millis(ms.into()))
}

fn keys() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 0..5)
}

fn limits() -> impl Strategy<Value = Limits> {
    let bounds = prop::collection::vec(maybe(any::<u64>()), 6);
    (maybe(any::<i32>()), bounds).prop_map(|(nice, bounds)| Limits {
        nice,
        open_files: bounds[0],
        file_bytes: bounds[1],
        cpu_seconds: bounds[2],
        address_space_bytes: bounds[3],
        memory_bytes: bounds[4],
        processes: bounds[5],
    })
}

fn command() -> impl Strategy<Value = Command> {
    let texts = || prop::collection::vec(bytes(), 0..4);
    let env = prop::collection::vec((bytes(), bytes()), 0..4);
    let groups = prop::collection::vec(any::<u32>(), 0..3);
    let user = (any::<u32>(), any::<u32>(), groups);
    let user = user.prop_map(|(uid, gid, groups)| User { uid, gid, groups });
    (
        (any::<u64>(), texts(), env, maybe(duration()), duration()),
        (
            maybe(bytes()),
            maybe(bytes()),
            maybe(bytes()),
            maybe(bytes()),
        ),
        (limits(), maybe(user), any::<bool>()),
    )
        .prop_map(|(words, places, rest)| Command {
            key: words.0,
            argv: words.1,
            env: words.2,
            timeout: words.3,
            grace: words.4,
            cwd: places.0,
            stdin: places.1,
            directory: places.2,
            previous_output: places.3,
            limits: rest.0,
            user: rest.1,
            allow_background: rest.2,
        })
}

fn to_supervisor() -> impl Strategy<Value = ToSupervisor> {
    prop_oneof![
        (any::<u32>(), any::<String>(), duration()).prop_map(
            |(protocol, version, orphan_timeout)| {
                ToSupervisor::Attach(Attach {
                    protocol,
                    version,
                    orphan_timeout,
                })
            }
        ),
        (command(), bytes()).prop_map(|(command, tag)| ToSupervisor::Start {
            command: Arc::new(command),
            tag
        }),
        any::<(u32, u64)>().prop_map(|(running, until_us)| {
            let running = running as usize;
            ToSupervisor::Window(Window { running, until_us })
        }),
        keys().prop_map(ToSupervisor::Withdraw),
        keys().prop_map(ToSupervisor::Cancel),
        keys().prop_map(ToSupervisor::Kill),
        any::<(u64, [u64; 2])>().prop_map(|(key, offsets)| ToSupervisor::Follow(key, offsets)),
        any::<u64>().prop_map(ToSupervisor::Unfollow),
        keys().prop_map(ToSupervisor::Forget),
        keys().prop_map(ToSupervisor::SetAside),
        Just(()).prop_map(|()| ToSupervisor::Stop),
    ]
}

fn attached() -> impl Strategy<Value = Attached> {
    let held = (any::<u64>(), bytes(), any::<bool>());
    let held = held.prop_map(|(key, tag, ended)| Held { key, tag, ended });
    let held = prop::collection::vec(held, 0..4);
    (any::<[u32; 4]>(), any::<[String; 2]>(), held).prop_map(|(numbers, names, held)| {
        let [protocol, pid, torn, damaged] = numbers;
        let [version, incarnation] = names;
        Attached {
            protocol,
            version,
            incarnation,
            pid,
            torn,
            damaged,
            held,
        }
    })
}

fn to_daemon() -> impl Strategy<Value = ToDaemon> {
    prop_oneof![
        attached().prop_map(ToDaemon::Attached),
        (any::<u64>(), bytes()).prop_map(|(key, record)| ToDaemon::Exit { key, record }),
        (any::<(u64, u8, u64, u64)>(), bytes()).prop_map(|((key, stream, offset, total), data)| {
            ToDaemon::Live {
                key,
                stream,
                offset,
                data,
                total,
            }
        }),
        any::<String>().prop_map(ToDaemon::Health),
        prop::collection::vec(any::<u32>(), 0..5).prop_map(ToDaemon::Strays),
        keys().prop_map(ToDaemon::Stuck),
        any::<u64>().prop_map(ToDaemon::Gone),
    ]
}

fn exit() -> impl Strategy<Value = Exit> {
    let reason = prop_oneof![
        Just(Reason::Exited),
        Just(Reason::Timeout),
        Just(Reason::SpawnFailed)
    ];
    let ending = prop_oneof![
        any::<i32>().prop_map(Ending::Code),
        any::<i32>().prop_map(Ending::Signal)
    ];
    let failure = (any::<i32>(), any::<String>()).prop_map(|(errno, error)| Failure {
        stage: "exec",
        errno,
        error,
    });
    (
        (reason, maybe(ending), maybe(failure), any::<bool>()),
        (bytes(), bytes(), any::<[u64; 2]>()),
        (any::<[u64; 5]>(), any::<bool>(), any::<[u32; 2]>()),
    )
        .prop_map(|(how, outputs, (used, timed_out, others))| {
            let (reason, ending, failure, killed) = how;
            let output = |bytes, total| Output { bytes, total };
            let usage = Usage {
                user_us: used[2],
                system_us: used[3],
                max_rss_kb: used[4],
                ..Usage::default()
            };
            Exit {
                key: 7,
                reason,
                ending,
                failure,
                killed,
                timed_out,
                killed_processes: others[0],
                left_processes: others[1],
                stdout: output(outputs.0, outputs.2[0]),
                stderr: output(outputs.1, outputs.2[1]),
                started_at_us: used[0],
                wall_us: used[1],
                usage,
            }
        })
}

/// A frame says how long it is, and is read as what it was; cut anywhere it is refused.
fn is_read_again<T: Debug>(
    frame: &[u8],
    written: &T,
    read: impl Fn(&[u8]) -> Result<T, Malformed>,
) -> Result<(), TestCaseError> {
    let (length, body) = frame.split_at(LENGTH_BYTES);
    prop_assert_eq!(length, &(body.len() as u32).to_le_bytes());
    let again = read(body).map(|message| format!("{message:?}"));
    prop_assert_eq!(again, Ok(format!("{written:?}")));
    for cut in 0..body.len() {
        prop_assert!(read(&body[..cut]).is_err(), "cut at {}", cut);
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_a_daemon_says_is_understood(message in to_supervisor()) {
        is_read_again(&message.encode(), &message, ToSupervisor::decode)?;
    }

    #[test]
    fn what_a_supervisor_says_is_understood(message in to_daemon()) {
        is_read_again(&message.encode(), &message, ToDaemon::decode)?;
    }

    #[test]
    fn whatever_else_is_said_does_no_harm(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ToSupervisor::decode(&body);
        let _ = ToDaemon::decode(&body);
        let _ = record::decode(&body);
    }

    #[test]
    fn a_record_says_how_a_command_ended(exit in exit(), tag in bytes(), later in bytes()) {
        let mut written = record::encode(&tag, &exit);
        prop_assert_eq!(record::tag_of(&written), Ok(tag.clone()));
        for cut in 0..written.len() {
            prop_assert!(record::decode(&written[..cut]).is_err(), "cut at {}", cut);
        }
        written.extend(later);

        let ended = record::decode(&written).expect("a record");

        prop_assert_eq!(ended.tag, tag);
        prop_assert_eq!(ended.reason, exit.reason.name());
        prop_assert_eq!(ended.ending, exit.ending);
        let failure = ended.failure.map(|failed| (failed.stage, failed.errno, failed.error));
        let expected = exit.failure.map(|failure| (failure.stage.into(), failure.errno, failure.error));
        prop_assert_eq!(failure, expected);
        prop_assert_eq!(ended.killed, exit.killed);
        prop_assert_eq!(ended.timed_out, exit.timed_out);
        prop_assert_eq!(ended.others, [exit.killed_processes, exit.left_processes]);
        let outputs = [exit.stdout, exit.stderr].map(|output| (output.bytes, output.total));
        prop_assert_eq!(ended.outputs, outputs);
        prop_assert_eq!(ended.started_at_us, exit.started_at_us);
        let usage = exit.usage;
        let used = [exit.wall_us, usage.user_us, usage.system_us, usage.max_rss_kb];
        prop_assert_eq!(ended.usage, used);
    }

    #[test]
    fn a_record_of_another_version_is_none(exit in exit(), version in any::<u8>()) {
        let mut written = record::encode(b"tag", &exit);
        let is_other = written[0] != version;
        written[0] = version;
        prop_assert_eq!(record::decode(&written).is_err(), is_other);
    }
}
