//! What is wrong with a configuration: a code, a place in the text, a sentence and a hint; all of them at once. It does
//! not know where problems come from, nor where the text of the file came from.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// Every kind of problem there is. Its name is what the operator sees in brackets and finds in
/// `docs/configuration.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemCode {
    Syntax,
    UnknownKey,
    WrongType,
    MissingKey,
    MissingSection,
    BadName,
    BadDuration,
    BadSize,
    BadRate,
    BadAddress,
    BadNetwork,
    BadHost,
    BadPath,
    BadOrigin,
    BadSubprotocol,
    BadToken,
    BadFile,
    BadHeader,
    BadMode,
    OutOfRange,
    UnknownChoice,
    UnknownCheck,
    UnknownUpstream,
    UnknownListener,
    UnservedVersion,
    EmptyList,
    DuplicateName,
    DuplicateListen,
    DuplicateServer,
    DuplicateVersion,
    DuplicateEntry,
    Contradiction,
    NoBridge,
    UnreachableRoute,
    UnusedUpstream,
}

impl ProblemCode {
    pub const ALL: [ProblemCode; 35] = [
        ProblemCode::Syntax,
        ProblemCode::UnknownKey,
        ProblemCode::WrongType,
        ProblemCode::MissingKey,
        ProblemCode::MissingSection,
        ProblemCode::BadName,
        ProblemCode::BadDuration,
        ProblemCode::BadSize,
        ProblemCode::BadRate,
        ProblemCode::BadAddress,
        ProblemCode::BadNetwork,
        ProblemCode::BadHost,
        ProblemCode::BadPath,
        ProblemCode::BadOrigin,
        ProblemCode::BadSubprotocol,
        ProblemCode::BadToken,
        ProblemCode::BadFile,
        ProblemCode::BadHeader,
        ProblemCode::BadMode,
        ProblemCode::OutOfRange,
        ProblemCode::UnknownChoice,
        ProblemCode::UnknownCheck,
        ProblemCode::UnknownUpstream,
        ProblemCode::UnknownListener,
        ProblemCode::UnservedVersion,
        ProblemCode::EmptyList,
        ProblemCode::DuplicateName,
        ProblemCode::DuplicateListen,
        ProblemCode::DuplicateServer,
        ProblemCode::DuplicateVersion,
        ProblemCode::DuplicateEntry,
        ProblemCode::Contradiction,
        ProblemCode::NoBridge,
        ProblemCode::UnreachableRoute,
        ProblemCode::UnusedUpstream,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ProblemCode::Syntax => "syntax",
            ProblemCode::UnknownKey => "unknown-key",
            ProblemCode::WrongType => "wrong-type",
            ProblemCode::MissingKey => "missing-key",
            ProblemCode::MissingSection => "missing-section",
            ProblemCode::BadName => "bad-name",
            ProblemCode::BadDuration => "bad-duration",
            ProblemCode::BadSize => "bad-size",
            ProblemCode::BadRate => "bad-rate",
            ProblemCode::BadAddress => "bad-address",
            ProblemCode::BadNetwork => "bad-network",
            ProblemCode::BadHost => "bad-host",
            ProblemCode::BadPath => "bad-path",
            ProblemCode::BadOrigin => "bad-origin",
            ProblemCode::BadSubprotocol => "bad-subprotocol",
            ProblemCode::BadToken => "bad-token",
            ProblemCode::BadFile => "bad-file",
            ProblemCode::BadHeader => "bad-header",
            ProblemCode::BadMode => "bad-mode",
            ProblemCode::OutOfRange => "out-of-range",
            ProblemCode::UnknownChoice => "unknown-choice",
            ProblemCode::UnknownCheck => "unknown-check",
            ProblemCode::UnknownUpstream => "unknown-upstream",
            ProblemCode::UnknownListener => "unknown-listener",
            ProblemCode::UnservedVersion => "unserved-version",
            ProblemCode::EmptyList => "empty-list",
            ProblemCode::DuplicateName => "duplicate-name",
            ProblemCode::DuplicateListen => "duplicate-listen",
            ProblemCode::DuplicateServer => "duplicate-server",
            ProblemCode::DuplicateVersion => "duplicate-version",
            ProblemCode::DuplicateEntry => "duplicate-entry",
            ProblemCode::Contradiction => "contradiction",
            ProblemCode::NoBridge => "no-bridge",
            ProblemCode::UnreachableRoute => "unreachable-route",
            ProblemCode::UnusedUpstream => "unused-upstream",
        }
    }

    /// Whether the problem lies in what stands at its place alone, whatever the rest of the file says or lacks.
    pub(super) fn is_local(self) -> bool {
        match self {
            ProblemCode::MissingKey
            | ProblemCode::MissingSection
            | ProblemCode::UnknownUpstream
            | ProblemCode::UnknownListener
            | ProblemCode::Contradiction
            | ProblemCode::NoBridge
            | ProblemCode::UnreachableRoute
            | ProblemCode::UnusedUpstream => false,
            ProblemCode::Syntax
            | ProblemCode::UnknownKey
            | ProblemCode::WrongType
            | ProblemCode::BadName
            | ProblemCode::BadDuration
            | ProblemCode::BadSize
            | ProblemCode::BadRate
            | ProblemCode::BadAddress
            | ProblemCode::BadNetwork
            | ProblemCode::BadHost
            | ProblemCode::BadPath
            | ProblemCode::BadOrigin
            | ProblemCode::BadSubprotocol
            | ProblemCode::BadToken
            | ProblemCode::BadFile
            | ProblemCode::BadHeader
            | ProblemCode::BadMode
            | ProblemCode::OutOfRange
            | ProblemCode::UnknownChoice
            | ProblemCode::UnknownCheck
            | ProblemCode::UnservedVersion
            | ProblemCode::EmptyList
            | ProblemCode::DuplicateName
            | ProblemCode::DuplicateListen
            | ProblemCode::DuplicateServer
            | ProblemCode::DuplicateVersion
            | ProblemCode::DuplicateEntry => true,
        }
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: ProblemCode,
    /// The place in the text, in bytes.
    pub span: Range<usize>,
    /// One line: lower case, no full stop, the offending value last.
    pub message: String,
    /// What stands beside the caret.
    pub label: String,
    /// What could be done about it.
    pub hint: Option<String>,
    /// Another place that it has to do with, and what is there.
    pub context: Option<(Range<usize>, String)>,
}

impl Problem {
    pub(super) fn new(code: ProblemCode, span: Range<usize>, message: impl Into<String>) -> Self {
        Problem { code, span, message: message.into(), label: String::new(), hint: None, context: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn context(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.context = Some((span, label.into()));
        self
    }
}

/// All that is wrong with one file; never empty. In the order of the text.
#[derive(Clone, Debug)]
pub struct Problems {
    name: String,
    text: String,
    problems: Vec<Problem>,
}

/// How problems are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// ASCII alone, for logs and pipes.
    Plain,
    /// With the colours of a terminal.
    Ansi,
}

impl Problems {
    pub(super) fn new(name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.span.start, problem.code));
        Problems { name: name.to_owned(), text: text.to_owned(), problems }
    }

    pub fn as_slice(&self) -> &[Problem] {
        &self.problems
    }

    /// What the file is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Line and column at which a place in the text begins, both counted from 1.
    pub fn position(&self, span: &Range<usize>) -> (usize, usize) {
        let before = &self.text[..self.visible(span).start];
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    }

    /// Every problem with its file, line, caret, code and hint, an empty line between them.
    pub fn render(&self, look: Look) -> String {
        let renderer = match look {
            Look::Plain => Renderer::plain(),
            Look::Ansi => Renderer::styled(),
        };
        let rendered: Vec<String> = self.problems.iter().map(|problem| self.render_one(problem, &renderer)).collect();
        rendered.join("\n\n") + "\n"
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let mark = AnnotationKind::Primary.span(self.visible(&problem.span));
        let mark = match problem.label.as_str() {
            "" => mark,
            label => mark.label(label),
        };
        let mut snippet = Snippet::source(&self.text).path(&self.name).annotation(mark);
        if let Some((span, label)) = &problem.context {
            let mark = AnnotationKind::Context.span(self.visible(span));
            snippet = snippet.annotation(mark.label(label));
        }
        let title = Level::ERROR.primary_title(&problem.message).id(problem.code.as_str());
        let mut group = title.element(snippet);
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.message(hint));
        }
        renderer.render(&[group])
    }

    /// A span that can be shown: inside the text and at the borders of characters, whatever a parser said.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end.max(start));
        start..end
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl std::error::Error for Problems {}
