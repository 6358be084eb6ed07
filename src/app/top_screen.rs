//! What `wardent top` shows, and what its keys mean. Knows no terminal and asks nobody.

use ratatui::{
    Frame,
    crossterm::event::KeyCode,
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize as _},
    text::Line,
    widgets::{Block, Clear, Paragraph, Row as Cells, Table, TableState},
};

use super::{admin_cli::printable, log_cli::bytes, replay_text::grouped};
use crate::admin::top::{By, Row, Top};

/// What the rows are in order of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Requests,
    Refused,
    Bytes,
    Slowest,
}

impl Sort {
    const ALL: [Self; 4] = [Self::Requests, Self::Refused, Self::Bytes, Self::Slowest];

    fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Refused => "refused",
            Self::Bytes => "bytes",
            Self::Slowest => "p99",
        }
    }

    pub(super) fn put_in_order(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| match self {
            Self::Requests => b.requests.cmp(&a.requests),
            Self::Refused => (b.refused + b.observed).cmp(&(a.refused + a.observed)),
            Self::Bytes => b.bytes_out.cmp(&a.bytes_out),
            Self::Slowest => b.p99_ms.total_cmp(&a.p99_ms),
        });
    }
}

/// Windows that may be looked at.
const WINDOWS: [&str; 4] = ["10s", "60s", "2m", "5m"];

/// What a key asks for beyond the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Quit,
    /// Another ranking than the one that is shown.
    Refresh,
    Ban(String),
    Explain(String),
}

/// What stands before the table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Front {
    Nothing,
    /// Whether to ban this client.
    Question(String),
    /// Lines to read, until a key is pressed.
    Page(&'static str, Vec<String>),
}

const HELP: [&str; 9] = [
    "Tab  client, route, path, reason, bot, user agent",
    "s    sort by requests, refused, bytes, p99",
    "w    window: 10 s, 60 s, 2 min, 5 min",
    "up, down, k, j   choose a row",
    "b    ban the client of the row",
    "e    explain: what would become of a request of that client now, and why",
    "Space   stand still, and go on",
    "r    look again at once",
    "q    quit",
];

/// The screen.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) by: By,
    pub(super) window: String,
    sort: Sort,
    is_still: bool,
    ban_for: String,
    top: Option<Top>,
    /// One line about Wardent as a whole.
    headline: String,
    chosen: TableState,
    front: Front,
    message: String,
}

impl Screen {
    pub(super) fn new(by: By, window: String, sort: Sort, ban_for: String) -> Self {
        Self {
            by,
            window,
            sort,
            is_still: false,
            ban_for,
            top: None,
            headline: String::new(),
            chosen: TableState::new().with_selected(0),
            front: Front::Nothing,
            message: String::new(),
        }
    }

    /// Shows another ranking; one that was asked for before the keys said otherwise is let go.
    pub(super) fn show(&mut self, mut top: Top) {
        if self.is_still && self.top.is_some() || top.by != self.by.word() {
            return;
        }
        // The row that was chosen stays so where it goes.
        let key = self.chosen_row().map(|row| row.key.clone());
        self.sort.put_in_order(&mut top.rows);
        let at = top
            .rows
            .iter()
            .position(|row| Some(&row.key) == key.as_ref());
        let last = top.rows.len().saturating_sub(1);
        let stays = self.chosen.selected().unwrap_or(0).min(last);
        self.chosen.select(Some(at.unwrap_or(stays)));
        self.top = Some(top);
    }

    pub(super) fn headline(&mut self, headline: String) {
        self.headline = headline;
    }

    pub(super) fn say(&mut self, message: impl Into<String>) {
        self.message = message.into();
    }

    pub(super) fn read(&mut self, title: &'static str, lines: Vec<String>) {
        self.front = Front::Page(title, lines);
    }

    fn chosen_row(&self) -> Option<&Row> {
        self.top.as_ref()?.rows.get(self.chosen.selected()?)
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyCode) -> Option<Wanted> {
        match std::mem::replace(&mut self.front, Front::Nothing) {
            Front::Question(client) => {
                return match key {
                    KeyCode::Char('y' | 'Y') => Some(Wanted::Ban(client)),
                    _ => {
                        self.say("not banned");
                        None
                    }
                };
            }
            Front::Page(..) => return None,
            Front::Nothing => {}
        }
        self.message.clear();
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wanted::Quit),
            KeyCode::Char('?' | 'h') => {
                self.read("keys", HELP.map(str::to_owned).to_vec());
            }
            KeyCode::Char('r') => return Some(Wanted::Refresh),
            KeyCode::Char(' ') => self.is_still = !self.is_still,
            KeyCode::Tab | KeyCode::Right => return self.turn(1),
            KeyCode::BackTab | KeyCode::Left => return self.turn(By::ALL.len() - 1),
            KeyCode::Char('w') => {
                let at = WINDOWS.iter().position(|window| *window == self.window);
                let next = at.map_or(0, |at| (at + 1) % WINDOWS.len());
                self.window = WINDOWS.get(next).copied().unwrap_or("60s").to_owned();
                return Some(Wanted::Refresh);
            }
            KeyCode::Char('s') => {
                let next = (self.sort as usize + 1) % Sort::ALL.len();
                self.sort = Sort::ALL.get(next).copied().unwrap_or(Sort::Requests);
                let sort = self.sort;
                if let Some(top) = &mut self.top {
                    sort.put_in_order(&mut top.rows);
                }
            }
            KeyCode::Down | KeyCode::Char('j') => self.chosen.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.chosen.select_previous(),
            KeyCode::Home => self.chosen.select_first(),
            KeyCode::End => self.chosen.select_last(),
            KeyCode::Char('b') => {
                if let Some(client) = self.client() {
                    self.front = Front::Question(client);
                }
            }
            KeyCode::Char('e') | KeyCode::Enter => return self.client().map(Wanted::Explain),
            _ => {}
        }
        None
    }

    /// Turns to another dimension, so many further.
    fn turn(&mut self, by: usize) -> Option<Wanted> {
        let next = (self.by as usize + by) % By::ALL.len();
        self.by = By::ALL.get(next).copied().unwrap_or(By::Client);
        self.top = None;
        self.chosen.select_first();
        Some(Wanted::Refresh)
    }

    /// The client of the row; elsewhere there is none, and that is said.
    fn client(&mut self) -> Option<String> {
        let key = self.chosen_row().map(|row| row.key.clone());
        match (self.by, key) {
            (By::Client, Some(key)) if key != "-" => Some(key),
            (By::Client, _) => None,
            _ => {
                self.say("that goes with clients: Tab leads there");
                None
            }
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Length(1),
        ]);
        let [head, body, foot] = areas.areas(frame.area());
        let line = self.line();
        frame.render_widget(
            Paragraph::new(vec![
                Line::from(self.headline.as_str()).bold(),
                Line::from(line),
            ]),
            head,
        );
        let table = self.table();
        frame.render_stateful_widget(table, body, &mut self.chosen);
        let foot_line = match (&self.front, self.message.as_str()) {
            (Front::Question(client), _) => Line::from(format!(
                "ban {} for {}? y/N",
                printable(client),
                self.ban_for
            ))
            .bold(),
            (_, "") => {
                Line::from("Tab by  s sort  w window  b ban  e explain  ? keys  q quit").dim()
            }
            (_, message) => Line::from(printable(message)),
        };
        frame.render_widget(Paragraph::new(foot_line), foot);
        if let Front::Page(title, lines) = &self.front {
            let lines: Vec<_> = lines.iter().map(|line| Line::from(line.as_str())).collect();
            let page = Paragraph::new(lines).block(Block::bordered().title(*title));
            frame.render_widget(Clear, body);
            frame.render_widget(page, body);
        }
    }

    fn line(&self) -> String {
        let still = if self.is_still {
            ", standing still"
        } else {
            ""
        };
        let looked = self.top.as_ref().map_or(String::new(), |top| {
            let share = match top.share < 1.0 {
                true => format!(
                    " ({:.0} % of all: numbers are estimates)",
                    top.share * 100.0
                ),
                false => String::new(),
            };
            format!(", {} requests looked at{share}", grouped(top.events))
        });
        let by = self.by.word().replace('_', " ");
        let sort = self.sort.word();
        format!(
            "by {by}, sorted by {sort}, last {}{looked}{still}",
            self.window
        )
    }

    fn table(&self) -> Table<'static> {
        let titles = [
            "REQUESTS", "REFUSED", "OBSERVED", "LIMITED", "BANNED", "FAILED", "BYTES", "P50", "P99",
        ];
        let mut widths: Vec<_> = titles.iter().map(|_| Constraint::Length(9)).collect();
        widths.push(Constraint::Min(20));
        let key = self.by.word().to_uppercase().replace('_', " ");
        let head = titles.map(|title| format!("{title:>9}"));
        let header = Cells::new(head.into_iter().chain([key])).bold();
        let rows = self.top.iter().flat_map(|top| &top.rows).map(|row| {
            let cells = cells(row).map(|cell| format!("{cell:>9}"));
            let style = match row.refused {
                0 => Style::new(),
                refused if refused * 2 > row.requests => Style::new().fg(Color::Red),
                _ => Style::new().fg(Color::Yellow),
            };
            Cells::new(cells.into_iter().chain([printable(&row.key)])).style(style)
        });
        Table::new(rows, widths)
            .header(header)
            .row_highlight_style(Style::new().reversed())
    }
}

/// The numbers of a row, in the order of their titles.
pub(super) fn cells(row: &Row) -> [String; 9] {
    let count = |count: u64| match count {
        0 => "-".to_owned(),
        count => grouped(count),
    };
    [
        grouped(row.requests),
        count(row.refused),
        count(row.observed),
        count(row.rate_limited),
        count(row.banned_hits),
        count(row.failed),
        bytes(row.bytes_out),
        format!("{:.1}ms", row.p50_ms),
        format!("{:.1}ms", row.p99_ms),
    ]
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn row(key: &str, requests: u64, refused: u64) -> Row {
        Row {
            key: key.to_owned(),
            requests,
            refused,
            ..Row::default()
        }
    }

    fn top(by: By, rows: Vec<Row>) -> Top {
        Top {
            by: by.word().to_owned(),
            window_s: 60,
            since: String::new(),
            until: String::new(),
            events: 9,
            share: 0.25,
            rows,
        }
    }

    fn screen() -> Screen {
        let mut screen = Screen::new(By::Client, "60s".into(), Sort::Requests, "1h".into());
        let rows = vec![row("198.51.100.7", 5, 0), row("203.0.113.9", 4, 3)];
        screen.show(top(By::Client, rows));
        screen
    }

    fn shown(screen: &mut Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(130, 16)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn rows_are_shown_with_how_sure_they_are() {
        let mut screen = screen();
        screen.headline("wardent serving".to_owned());
        let shown = shown(&mut screen);
        for words in [
            "wardent serving",
            "by client, sorted by requests, last 60s, 9 requests looked at (25 % of all: numbers are estimates)",
            "198.51.100.7",
            "b ban  e explain",
        ] {
            assert!(shown.contains(words), "{words}\n{shown}");
        }
    }

    #[test]
    fn a_ban_is_asked_about_first() {
        let mut screen = screen();
        assert_eq!(screen.key(KeyCode::Char('j')), None);
        assert_eq!(screen.key(KeyCode::Char('b')), None);
        assert!(shown(&mut screen).contains("ban 203.0.113.9 for 1h? y/N"));
        assert_eq!(screen.key(KeyCode::Char('n')), None);
        assert!(shown(&mut screen).contains("not banned"));
        screen.key(KeyCode::Char('b'));
        let banned = Wanted::Ban("203.0.113.9".to_owned());
        assert_eq!(screen.key(KeyCode::Char('y')), Some(banned));
    }

    #[test]
    fn the_chosen_row_stays_so_where_it_goes() {
        let mut screen = screen();
        screen.key(KeyCode::Char('s'));
        screen.key(KeyCode::Char('e'));
        let rows = vec![row("192.0.2.1", 9, 1), row("203.0.113.9", 4, 3)];
        screen.show(top(By::Client, rows));
        let explained = Wanted::Explain("203.0.113.9".to_owned());
        assert_eq!(screen.key(KeyCode::Enter), Some(explained));
    }

    #[test]
    fn only_clients_are_banned_or_explained() {
        let mut screen = screen();
        assert_eq!(screen.key(KeyCode::Tab), Some(Wanted::Refresh));
        assert_eq!(screen.by, By::Route);
        // What was asked for before comes too late.
        screen.show(top(By::Client, vec![row("198.51.100.7", 5, 0)]));
        assert!(!shown(&mut screen).contains("198.51.100.7"));
        screen.show(top(By::Route, vec![row("login\u{9b}", 5, 0)]));
        assert!(shown(&mut screen).contains("login\\u{9b}"));
        assert_eq!(screen.key(KeyCode::Char('b')), None);
        assert!(shown(&mut screen).contains("that goes with clients"));
    }

    #[test]
    fn keys_change_what_is_looked_at() {
        let mut screen = screen();
        assert_eq!(screen.key(KeyCode::Char('w')), Some(Wanted::Refresh));
        assert_eq!(screen.window, "2m");
        screen.key(KeyCode::Char(' '));
        screen.show(top(By::Client, Vec::new()));
        assert!(shown(&mut screen).contains("198.51.100.7"));
        screen.key(KeyCode::Char('?'));
        assert!(shown(&mut screen).contains("ban the client of the row"));
        assert_eq!(screen.key(KeyCode::Char('q')), None);
        assert_eq!(screen.key(KeyCode::Char('q')), Some(Wanted::Quit));
    }
}
