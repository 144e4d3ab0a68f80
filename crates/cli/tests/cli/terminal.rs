//! On a terminal: what a person sees there, read off a real one (a pty), and how it is left.

use std::num::NonZero;
use std::process::ExitStatus;
use std::time::Duration;

use pty_process::{Command, OwnedReadPty, OwnedWritePty, Pty, Size};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::time::timeout;
use vt100::Parser;

use crate::agent::{Agent, copying, done};

/// Whatever is to be seen is seen by then, unless something hangs.
const SOON: Duration = Duration::from_secs(20);

/// A terminal of 100 columns and 30 lines, and the program on it.
struct Person {
    program: Child,
    reads: OwnedReadPty,
    types: OwnedWritePty,
    screen: Parser,
    /// All that came, as bytes.
    came: Vec<u8>,
}

impl Person {
    fn starts(agent: &Agent, arguments: &[&str], settings: &[(&str, &str)]) -> Person {
        let (pty, pts): (Pty, _) = pty_process::open().unwrap();
        pty.resize(Size::new(30, 100)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        for unset in
            ["EVENKEEL_SOCKET", "EVENKEEL_HOST", "EVENKEEL_CA", "EVENKEEL_TOKEN", "NO_COLOR"]
        {
            command = command.env_remove(unset);
        }
        let socket = agent.socket.to_str().unwrap();
        command = command.env("TERM", "xterm-256color").args(["--socket", socket]).args(arguments);
        command = command.envs(settings.iter().copied()).kill_on_drop(true);
        let program = command.spawn(pts).unwrap();
        let (reads, types) = pty.into_split();
        let (lines, columns) = size(30, 100);
        let screen = Parser::new(lines, columns, 0);
        Person { program, reads, types, screen, came: Vec::new() }
    }

    /// Looks until it is so.
    async fn sees(&mut self, what: &str, so: impl Fn(&vt100::Screen) -> bool) {
        let looks = async {
            while !so(self.screen.screen()) {
                assert!(self.more().await, "the program has ended");
            }
        };
        let seen = timeout(SOON, looks).await.is_ok();
        assert!(seen, "{what} is not to be seen:\n{}", self.screen.screen().contents());
    }

    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Where nobody holds the other end any more, Linux gives EIO instead of the end.
        let count = self.reads.read(&mut bytes).await.unwrap_or(0);
        self.screen.process(&bytes[..count]);
        self.came.extend(&bytes[..count]);
        count > 0
    }

    async fn types(&mut self, keys: &str) {
        self.types.write_all(keys.as_bytes()).await.unwrap();
    }

    async fn ends(&mut self) -> ExitStatus {
        let ends = async { while self.more().await {} };
        timeout(SOON, ends).await.expect("the program ends");
        self.program.wait().await.unwrap()
    }
}

fn size(lines: u16, columns: u16) -> (NonZero<u16>, NonZero<u16>) {
    (NonZero::new(lines).unwrap(), NonZero::new(columns).unwrap())
}

/// What stands below the head of the VMs, without the keys.
fn vms(screen: &vt100::Screen) -> Vec<String> {
    let rows = screen.rows(0, 100).skip_while(|row| !row.starts_with("VM ")).skip(1);
    rows.filter(|row| !row.trim().is_empty() && !row.contains("q end")).collect()
}

fn coloured(screen: &vt100::Screen) -> bool {
    let cells = (0..30).flat_map(|row| (0..100).filter_map(move |column| screen.cell(row, column)));
    cells.into_iter().any(|cell| cell.fgcolor() != vt100::Color::Default)
}

fn shows(text: &'static str) -> impl Fn(&vt100::Screen) -> bool {
    move |screen| screen.contents().contains(text)
}

#[tokio::test]
async fn top_takes_the_whole_terminal_and_gives_it_back() {
    let agent = Agent::start(vec![]);
    let mut person = Person::starts(&agent, &["top"], &[]);
    person.sees("host and VM", |screen| shows("host1")(screen) && shows("web")(screen)).await;
    person.sees("colours", coloured).await;
    let taken = |screen: &vt100::Screen| screen.alternate_screen() && screen.hide_cursor();
    person.sees("a screen of its own, without a cursor", taken).await;
    let (lines, columns) = size(12, 100);
    person.screen.screen_mut().set_size(lines, columns);
    person.types.resize(Size::new(12, 100)).unwrap();
    let foot = |screen: &vt100::Screen| {
        screen.rows(0, 100).nth(11).is_some_and(|row| row.contains("q end"))
    };
    person.sees("the keys at the foot of a lower terminal", foot).await;
    person.types("q").await;
    assert!(person.ends().await.success());
    let screen = person.screen.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "as it was before");
}

#[tokio::test]
async fn top_finds_sorts_and_says_that_the_agent_is_gone() {
    let agent = Agent::start(vec![]);
    let mut person = Person::starts(&agent, &["top"], &[("NO_COLOR", "1")]);
    person.sees("a VM", |screen| vms(screen).concat().contains("host1")).await;
    assert!(!coloured(person.screen.screen()), "NO_COLOR is set");
    person.sees("by what it sorts", shows("s sort (by CPU)")).await;
    person.types("s").await;
    person.sees("that it sorts by another column", shows("s sort (by PACKETS/S)")).await;
    person.types("/nobody\r").await;
    let none = |screen: &vt100::Screen| shows("PACKETS/S")(screen) && vms(screen).is_empty();
    person.sees("the heads, and no VM of that name", none).await;
    std::fs::remove_file(&agent.socket).unwrap();
    person.sees("that nobody answers", shows("NO ANSWER")).await;
    person.types("\x03").await;
    assert!(person.ends().await.success(), "Ctrl-C ends it as q does");
}

#[tokio::test]
async fn a_move_is_a_bar_and_then_a_sentence() {
    let agent = Agent::start(vec![copying(), copying(), done()]);
    let mut person = Person::starts(&agent, &["move", "web"], &[]);
    assert!(person.ends().await.success());
    let came = String::from_utf8_lossy(&person.came).into_owned();
    assert!(came.contains("==>"), "{came}");
    assert!(shows("web moved from host1 to host2")(person.screen.screen()), "{came}");
}
