//! Where text goes: data to stdout, all else to stderr; colour only for terminals.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::exit::{Done, Fault};

/// Colours, or none. Sense never depends on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paint {
    pub(super) is_on: bool,
}

impl Paint {
    pub(super) fn with(self, style: Style, text: &str) -> String {
        if self.is_on {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn colour(self, colour: AnsiColor, text: &str) -> String {
        self.with(colour.on_default(), text)
    }

    /// `⬢ NAME`.
    pub(super) fn app(self, name: &str) -> String {
        self.colour(AnsiColor::Magenta, &format!("⬢ {name}"))
    }

    /// `=== TEXT` and an empty line.
    pub(super) fn heading(self, text: &str) -> String {
        format!("=== {}\n\n", self.with(Style::new().bold(), text))
    }

    /// A dyno's state.
    pub(super) fn state(self, state: &str) -> String {
        match state {
            "up" => self.colour(AnsiColor::Green, state),
            "crashed" => self.colour(AnsiColor::Red, state),
            "starting" => self.colour(AnsiColor::Yellow, state),
            _ => state.to_owned(),
        }
    }

    /// One of a few colours, the same for the same text.
    pub(super) fn by_name(self, name: &str, text: &str) -> String {
        const COLOURS: [AnsiColor; 5] = [
            AnsiColor::Yellow,
            AnsiColor::Green,
            AnsiColor::Cyan,
            AnsiColor::Magenta,
            AnsiColor::Blue,
        ];
        let sum = name.bytes().fold(0, |sum, byte| sum + usize::from(byte));
        self.colour(COLOURS[sum % COLOURS.len()], text)
    }

    fn error(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    fn hint(self, text: &str) -> String {
        self.with(AnsiColor::Cyan.on_default(), text)
    }
}

/// Both outputs of a command.
pub(super) struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Somebody reads the data on a terminal.
    pub(super) is_terminal: bool,
    /// For data.
    pub(super) paint: Paint,
    /// For all else.
    pub(super) note_paint: Paint,
}

impl Screen {
    /// The process's own.
    pub(super) fn stdio() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let paint = |is_on| Paint { is_on };
        let off = anstream::ColorChoice::Never;
        Self {
            is_terminal: io::IsTerminal::is_terminal(&out),
            paint: paint(anstream::AutoStream::choice(&out) != off),
            note_paint: paint(anstream::AutoStream::choice(&err) != off),
            out: Box::new(out),
            err: Box::new(err),
        }
    }

    #[cfg(test)]
    pub(super) fn to(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            is_terminal: false,
            paint: Paint::default(),
            note_paint: Paint::default(),
        }
    }

    /// Data, as it is, at once.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Done {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        written.map_err(|error| Fault::output(&error))
    }

    /// Data.
    pub(super) fn data(&mut self, text: &str) -> Done {
        self.bytes(text.as_bytes())
    }

    /// API objects.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Done {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Fault::general(format!("cannot write JSON: {error}")))?;
        self.data(&format!("{text}\n"))
    }

    /// A part of a line on stderr. That nobody can read it is no reason to stop the work.
    fn note_part(&mut self, text: &str) {
        self.err.write_all(text.as_bytes()).ok();
        self.err.flush().ok();
    }

    /// A line on stderr.
    pub(super) fn note(&mut self, text: &str) {
        self.note_part(&format!("{text}\n"));
    }

    /// Shows `WHAT... ` while the work lasts, then `done` and what `told` makes of the result.
    pub(super) async fn action<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = Done<T>>,
        told: impl FnOnce(&T) -> String,
    ) -> Done<T> {
        self.action_told(what, work, |value| format!("done{}", told(value)))
            .await
    }

    /// Shows `WHAT... ` while the work lasts, then what `told` makes of the result.
    pub(super) async fn action_told<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = Done<T>>,
        told: impl FnOnce(&T) -> String,
    ) -> Done<T> {
        self.note_part(&format!("{what}... "));
        let result = work.await;
        match &result {
            Ok(value) => self.note(&told(value)),
            Err(_) => self.note("!"),
        }
        result
    }

    /// The end of a command that failed.
    pub(super) fn fault(&mut self, fault: &Fault) {
        let paint = self.note_paint;
        self.note(&format!("{} {}", paint.error("error:"), fault.message));
        if let Some(hint) = &fault.hint {
            self.note(&format!("{} {hint}", paint.hint("hint:")));
        }
    }
}

/// Nothing more to tell than `done`.
pub(super) fn plainly<T>(_: &T) -> String {
    String::new()
}

/// Rows in columns, two spaces apart.
pub(super) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if rows.is_empty() && header.is_empty() {
        return String::new();
    }
    format!("{}\n", table.trim_fmt())
}

/// `KEY: VALUE` lines with the values below each other.
pub(super) fn pairs<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let length = |(key, _): &(K, V)| key.as_ref().chars().count() + 1;
    let width = pairs.iter().map(length).max().unwrap_or_default();
    let mut text = String::new();
    for (key, value) in pairs {
        let line = format!(
            "{:<width$} {}",
            format!("{}:", key.as_ref()),
            value.as_ref()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Each with a line end.
pub(super) fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// Text of others in one line of ours: line ends and escapes must not reach the terminal.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// `36.3 MB`, in powers of two.
pub(super) fn bytes(count: u64) -> String {
    let mut rest = count;
    let mut tenths = 0;
    let mut unit = 0;
    while rest >= 1024 {
        tenths = rest % 1024 * 10 / 1024;
        rest /= 1024;
        unit += 1;
    }
    let name = ["B", "KB", "MB", "GB", "TB", "PB", "EB"][unit];
    if unit == 0 {
        format!("{rest} {name}")
    } else {
        format!("{rest}.{tenths} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;
    use crate::cli::fake::Sink;

    #[tokio::test]
    async fn progress_and_faults_go_to_stderr_and_data_to_stdout() {
        let (out, err) = (Sink::default(), Sink::default());
        let mut screen = Screen::to(out.clone(), err.clone());
        let done = screen.action("Scaling dynos", async { Ok(3) }, |n| format!(", now {n}"));
        assert_eq!(done.await, Ok(3));
        let fault = Fault::new(Exit::NotFound, "No.").hint("look elsewhere");
        let failing = fault.clone();
        let failed: Done = screen
            .action("Stopping", async { Err(failing) }, plainly)
            .await;
        assert_eq!(failed, Err(fault.clone()));
        screen.fault(&fault);
        screen.data("data\n").expect("written");
        assert_eq!(out.text(), "data\n");
        assert_eq!(
            err.text(),
            "Scaling dynos... done, now 3\nStopping... !\nerror: No.\nhint: look elsewhere\n"
        );
    }

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["v10", "Deplöy"]), row(["v9", "a\nb\u{1b}[31m"])];
        insta::assert_snapshot!(columns(&["Rel", "Change"], &rows), @r#"
        Rel  Change
        v10  Deplöy
        v9   a\nb\u{1b}[31m
        "#);
        insta::assert_snapshot!(columns(&[], &rows), @r#"
        v10  Deplöy
        v9   a\nb\u{1b}[31m
        "#);
        assert_eq!(columns(&[], &[]), "");
    }

    #[test]
    fn pairs_line_up() {
        assert_eq!(pairs(&[("A", "1"), ("LONG", "")]), "A:    1\nLONG:\n");
    }

    #[test]
    fn sizes_are_told_in_powers_of_two() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KB");
        check(38_063_309, "36.2 MB");
        check(u64::MAX, "15.9 EB");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let on = Paint { is_on: true };
        let plain = anstream::adapter::strip_str(&on.heading("x")).to_string();
        assert_eq!(plain, Paint::default().heading("x"));
        assert!(on.state("up").contains('\u{1b}'));
        assert_eq!(Paint::default().app("shop"), "⬢ shop");
    }
}
