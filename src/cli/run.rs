//! One-off dynos: attached to this terminal or these pipes, or detached.

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::arguments::Run;
use super::client::{self, Client};
use super::exit::{Done, Exit, Fault};
use super::output::{Screen, one_line};
use super::path::of_app;
use super::quote;
use super::terminal::{self, Raw, Signals, Size};
use crate::api::types::attach::{Frame, PAYLOAD_MAX};
use crate::api::types::{Dyno, DynoCreate};

/// Sizes that wait to be sent.
const SIZES: usize = 8;

/// Bytes of stdin sent at once.
const INPUT: usize = PAYLOAD_MAX / 4;

/// `run`: returns the command's exit status.
pub(super) async fn attached(client: &Client, screen: &mut Screen, order: &Run) -> Done<u8> {
    let app = order.app.required()?;
    let is_terminal = !order.no_tty && terminal::is_interactive();
    let mut body = body(order)?;
    body.attach = true;
    body.force_no_tty = Some(!is_terminal);
    if is_terminal {
        describe_terminal(&mut body.env);
    }
    let told = |dyno: &Dyno| format!("{}, {}", one_line(&dyno.state), dyno.name);
    let dyno = if is_terminal {
        start(client, screen, app, &body, told).await?
    } else {
        // stderr is the command's alone: a script may read it.
        client.post(&of_app(app, "/dynos"), &body).await?
    };
    let url = dyno.attach_url.as_deref().ok_or_else(|| {
        let message = format!("the supervisor does not let us attach to {}", dyno.name);
        Fault::new(Exit::Server, message)
    })?;
    let stream = client.attach(url).await?;
    let ended = if is_terminal {
        on_terminal(stream).await?
    } else {
        let (_sender, sizes) = mpsc::channel(1);
        converse(stream, Local::stdio(), sizes).await?
    };
    match ended {
        Ended::Status(status) => Ok(status),
        Ended::Failed(reason) => {
            let message = format!("{} did not run: {}", dyno.name, one_line(&reason));
            Err(Fault::general(message))
        }
    }
}

/// `run:detached`: prints the dyno's name.
pub(super) async fn detached(client: &Client, screen: &mut Screen, order: &Run) -> Done {
    let app = order.app.required()?;
    let body = body(order)?;
    let told = |dyno: &Dyno| format!("done, {}", dyno.name);
    let dyno = start(client, screen, app, &body, told).await?;
    screen.data(&format!("{}\n", dyno.name))?;
    screen.note(&format!(
        "Its output goes to the logs: manifold logs --app {app} --dyno {}",
        dyno.name
    ));
    Ok(())
}

async fn start(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    body: &DynoCreate,
    told: impl FnOnce(&Dyno) -> String,
) -> Done<Dyno> {
    let command = one_line(&body.command);
    let what = format!("Running {command} on {}", screen.note_paint.app(app));
    let path = of_app(app, "/dynos");
    screen
        .action_told(&what, client.post(&path, body), told)
        .await
}

fn body(order: &Run) -> Done<DynoCreate> {
    Ok(DynoCreate {
        command: quote::command(&order.words, order.is_exact),
        attach: false,
        env: environment(&order.env)?,
        force_no_tty: None,
        size: order.size.clone(),
        process: order.process.clone(),
        time_to_live: order.time_to_live,
    })
}

/// `A=b;C=d`, as the `heroku` CLI takes it.
fn environment(words: &[String]) -> Done<BTreeMap<String, Value>> {
    let pairs = words.iter().flat_map(|word| word.split(';'));
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
            _ => Err(Fault::usage(format!(
                "--env {} is invalid. Must be in the format FOO=bar.",
                one_line(pair)
            ))),
        })
        .collect()
}

/// What programs want to know of the terminal; the user's own words win.
fn describe_terminal(env: &mut BTreeMap<String, Value>) {
    let kind = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
    env.entry("TERM".to_owned()).or_insert(kind.into());
    if let Some((columns, rows)) = terminal::size() {
        env.entry("COLUMNS".to_owned()).or_insert(columns.into());
        env.entry("LINES".to_owned()).or_insert(rows.into());
    }
}

async fn on_terminal(stream: impl AsyncRead + AsyncWrite) -> Done<Ended> {
    let fail = |error: io::Error| Fault::general(format!("cannot use the terminal: {error}"));
    // Signals first: none may end us between raw mode and its end.
    let signals = Signals::take().map_err(fail)?;
    let raw = Raw::enter().map_err(fail)?;
    let (sender, sizes) = mpsc::channel(SIZES);
    terminal::report(&sender);
    tokio::select! {
        ended = converse(stream, Local::stdio(), sizes) => ended,
        status = signals.watch(&raw, &sender) => Ok(Ended::Status(status)),
    }
}

/// How an attached command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Status(u8),
    Failed(String),
}

/// Our three streams.
struct Local<I, O, E> {
    stdin: I,
    stdout: O,
    stderr: E,
}

impl Local<tokio::io::Stdin, tokio::io::Stdout, tokio::io::Stderr> {
    /// Those of the process. Reads and writes happen on other threads, so that a stuck one does
    /// not keep signals from us.
    fn stdio() -> Self {
        Self {
            stdin: tokio::io::stdin(),
            stdout: tokio::io::stdout(),
            stderr: tokio::io::stderr(),
        }
    }
}

/// Passes bytes both ways until the command's end is told.
async fn converse(
    stream: impl AsyncRead + AsyncWrite,
    local: Local<impl AsyncRead + Unpin, impl AsyncWrite + Unpin, impl AsyncWrite + Unpin>,
    sizes: mpsc::Receiver<Size>,
) -> Done<Ended> {
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        ended = receive(reader, local.stdout, local.stderr) => ended,
        never = send(writer, local.stdin, sizes) => match never {},
    }
}

/// Sends what is typed. It never ends by itself: the last word is the command's.
async fn send(
    mut writer: impl AsyncWrite + Unpin,
    mut stdin: impl AsyncRead + Unpin,
    mut sizes: mpsc::Receiver<Size>,
) -> std::convert::Infallible {
    let mut buffer = vec![0; INPUT];
    let (mut is_over, mut is_fixed) = (false, false);
    loop {
        let frame = tokio::select! {
            read = stdin.read(&mut buffer), if !is_over => {
                // A stdin that cannot be read is at its end; the empty frame says so.
                let count = read.unwrap_or(0);
                is_over = count == 0;
                Frame::Stdin(buffer[..count].to_vec())
            }
            size = sizes.recv(), if !is_fixed => {
                let Some((columns, rows)) = size else {
                    is_fixed = true;
                    continue;
                };
                Frame::Resize(columns, rows)
            }
            else => return std::future::pending().await,
        };
        let sent = async {
            writer.write_all(&frame.encode()).await?;
            writer.flush().await
        };
        if sent.await.is_err() {
            // The other direction tells why.
            return std::future::pending().await;
        }
    }
}

async fn receive(
    mut reader: impl AsyncRead + Unpin,
    mut stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> Done<Ended> {
    let mut wire = Vec::with_capacity(PAYLOAD_MAX);
    loop {
        while let Some(frame) = Frame::decode(&mut wire).map_err(|error| client::broken(&error))? {
            match frame {
                Frame::Stdout(bytes) => pass(&mut stdout, &bytes).await?,
                Frame::Stderr(bytes) => pass(&mut stderr, &bytes).await?,
                Frame::Exit(status) => return Ok(Ended::Status(status)),
                Frame::Failed(reason) => return Ok(Ended::Failed(reason)),
                Frame::Stdin(_) | Frame::Resize(..) => {
                    let error = io::Error::other("it sent a frame that is ours to send");
                    return Err(client::broken(&error));
                }
            }
        }
        match reader.read_buf(&mut wire).await {
            Ok(0) => {
                let error = io::Error::other("it ended before the command did");
                return Err(client::broken(&error));
            }
            Ok(_) => {}
            Err(error) => return Err(client::broken(&error)),
        }
    }
}

async fn pass(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Done {
    let passed = async {
        output.write_all(bytes).await?;
        output.flush().await
    };
    passed.await.map_err(|error| Fault::output(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::cli::fake::{Fake, objects};

    type Outcome = (Done<Ended>, Vec<u8>, Vec<u8>);
    type Ends = (DuplexStream, mpsc::Sender<Size>, JoinHandle<Outcome>);

    /// Talks to a dyno that is played by the other end.
    fn conversation(stdin: &'static [u8]) -> Ends {
        let (ours, theirs) = tokio::io::duplex(256);
        let (sender, sizes) = mpsc::channel(SIZES);
        let task = tokio::spawn(async move {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let local = Local {
                stdin,
                stdout: &mut stdout,
                stderr: &mut stderr,
            };
            let ended = converse(ours, local, sizes).await;
            (ended, stdout, stderr)
        });
        (theirs, sender, task)
    }

    async fn frame(stream: &mut DuplexStream, wire: &mut Vec<u8>) -> Frame {
        loop {
            if let Some(frame) = Frame::decode(wire).expect("a frame") {
                return frame;
            }
            assert_ne!(stream.read_buf(wire).await.expect("read"), 0, "closed");
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_status_comes_last() {
        let (mut dyno, _sizes, task) = conversation(b"through stdin");
        let mut wire = Vec::new();
        let typed = frame(&mut dyno, &mut wire).await;
        assert_eq!(typed, Frame::Stdin(b"through stdin".to_vec()));
        let end = frame(&mut dyno, &mut wire).await;
        assert_eq!(
            end,
            Frame::Stdin(Vec::new()),
            "the end of stdin is passed on"
        );
        for frame in [
            Frame::Stdout(vec![b'x'; 1000]),
            Frame::Stderr(b"oops".to_vec()),
            Frame::Stdout(Vec::new()),
            Frame::Exit(7),
        ] {
            dyno.write_all(&frame.encode()).await.expect("sent");
        }
        let (ended, stdout, stderr) = task.await.expect("no panic");
        assert_eq!(ended, Ok(Ended::Status(7)));
        assert_eq!((stdout, stderr), (vec![b'x'; 1000], b"oops".to_vec()));
    }

    #[tokio::test]
    async fn a_dyno_that_answers_before_it_reads_on_gets_all_of_a_long_input() {
        let long: &'static [u8] = vec![7; 1 << 20].leak();
        let (mut dyno, _sizes, task) = conversation(long);
        let mut wire = Vec::new();
        // As `cat`: while its answer is not read, it reads no more either.
        loop {
            match frame(&mut dyno, &mut wire).await {
                Frame::Stdin(bytes) if bytes.is_empty() => break,
                Frame::Stdin(bytes) => {
                    let answer = Frame::Stdout(bytes).encode();
                    dyno.write_all(&answer).await.expect("sent");
                }
                other => panic!("{other:?}"),
            }
        }
        let exit = Frame::Exit(0).encode();
        dyno.write_all(&exit).await.expect("sent");
        let (ended, stdout, _) = task.await.expect("no panic");
        assert_eq!(ended, Ok(Ended::Status(0)));
        assert_eq!(stdout, long);
    }

    #[tokio::test]
    async fn new_window_sizes_are_sent_after_the_end_of_stdin_too() {
        let (mut dyno, sizes, task) = conversation(b"");
        let mut wire = Vec::new();
        assert_eq!(frame(&mut dyno, &mut wire).await, Frame::Stdin(Vec::new()));
        sizes.send((132, 43)).await.expect("sent");
        assert_eq!(frame(&mut dyno, &mut wire).await, Frame::Resize(132, 43));
        let failed = Frame::Failed("mount /proc: EPERM".to_owned());
        dyno.write_all(&failed.encode()).await.expect("sent");
        let (ended, ..) = task.await.expect("no panic");
        assert_eq!(ended, Ok(Ended::Failed("mount /proc: EPERM".to_owned())));
    }

    #[tokio::test]
    async fn a_connection_that_ends_early_or_talks_nonsense_is_a_fault() {
        for bytes in [
            &b""[..],
            &Frame::Exit(0).encode()[..3],
            &[9; 64],
            &Frame::Resize(1, 1).encode(),
        ] {
            let (mut dyno, _sizes, task) = conversation(b"");
            dyno.write_all(bytes).await.expect("sent");
            drop(dyno);
            let (ended, ..) = task.await.expect("no panic");
            let fault = ended.expect_err("broken");
            assert_eq!(fault.exit, Exit::Connection, "{bytes:?}: {fault}");
        }
    }

    #[tokio::test]
    async fn a_detached_run_prints_its_name_and_where_to_look() {
        let fake = Fake::start();
        fake.on(
            "POST /apps/shop/dynos",
            201,
            &objects::dyno("run.1234", "starting", "x"),
        );
        let words = [
            "run:detached",
            "-a",
            "shop",
            "-e",
            "A=b;C=d",
            "--",
            "echo",
            "from afar",
        ];
        fake.run(&words).await.expect("started");
        assert_eq!(fake.out.text(), "run.1234\n");
        insta::assert_snapshot!(fake.err.text(), @r#"
        Running echo 'from afar' on ⬢ shop... done, run.1234
        Its output goes to the logs: manifold logs --app shop --dyno run.1234
        "#);
        let body = fake.calls()[0].clone();
        let body = body
            .strip_prefix("POST /apps/shop/dynos ")
            .expect("the call");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let expected = json!({
            "command": "echo 'from afar'", "attach": false,
            "env": {"A": "b", "C": "d"}, "force_no_tty": null,
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn a_bad_variable_is_named_before_anything_is_started() {
        let fake = Fake::start();
        let fault = fake.run(&["run", "-a", "shop", "-e", "A", "ls"]).await;
        assert_eq!(fault.expect_err("refused").exit, Exit::Usage);
        assert!(fake.calls().is_empty());
    }
}
