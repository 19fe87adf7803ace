//! The contract as data: what a header for another language, or a page of documentation, is
//! written from.
//!
//! Texts called `about` are the documentation of what they belong to: sentences with spaces in
//! front of each line, as they come from the source.

use crate::{Request, Server, ServerInfo, Signals, export, import};

/// A record in a region.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its name, such as `ServerInfo`.
    pub name: &'static str,
    /// Its octets.
    pub size: usize,
    /// What it is.
    pub about: &'static str,
    /// Its fields in the order of their offsets, without gaps.
    pub fields: &'static [Field],
}

/// A field of a [`Record`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, such as `client_port`.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Where in the record it begins.
    pub offset: usize,
    /// What it is.
    pub about: &'static str,
}

/// What a [`Field`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One octet.
    U8,
    /// Two octets, little endian.
    U16,
    /// Four octets, little endian.
    U32,
    /// Eight octets, little endian.
    U64,
    /// Sixteen octets in network order.
    Address,
}

/// Numbers that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Their common name, such as `caps`.
    pub name: &'static str,
    /// What they are.
    pub about: &'static str,
    /// The numbers.
    pub constants: &'static [Constant],
}

/// A number with a name.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Its name, such as `COUNTERS`.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
    /// What it means.
    pub about: &'static str,
}

/// A function that a plugin exports or may import. All parameters are `i32`.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// The module that it is imported from; empty for an export.
    pub module: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its parameters' names.
    pub parameters: &'static [&'static str],
    /// The name of its result, which is an `i32`; empty when it has none.
    pub result: &'static str,
    /// Whether a plugin without it is refused.
    pub is_required: bool,
    /// What it is for.
    pub about: &'static str,
}

/// Every record.
pub const RECORDS: [Record; 4] =
    [Request::DESCRIPTION, Server::DESCRIPTION, ServerInfo::DESCRIPTION, Signals::DESCRIPTION];

/// Every group of numbers.
pub const GROUPS: [Group; 7] = [
    crate::region::DESCRIPTION,
    crate::caps::DESCRIPTION,
    crate::server_flags::DESCRIPTION,
    crate::result::DESCRIPTION,
    crate::event::DESCRIPTION,
    crate::connect_failed::DESCRIPTION,
    crate::log_level::DESCRIPTION,
];

/// Every function that a plugin can export, in the order in which they are first called.
pub const EXPORTS: [Function; 11] = {
    const fn required(
        name: &'static str,
        parameters: &'static [&'static str],
        result: &'static str,
        about: &'static str,
    ) -> Function {
        Function { module: "", name, parameters, result, is_required: true, about }
    }
    const fn optional(
        name: &'static str,
        parameters: &'static [&'static str],
        result: &'static str,
        about: &'static str,
    ) -> Function {
        Function { module: "", name, parameters, result, is_required: false, about }
    }
    [
        optional(
            export::INITIALIZE,
            &[],
            "",
            "The start of the runtime of languages that have one. A module with `_start` and \
             without `_initialize` is a program, no plugin.",
        ),
        required(
            export::ABI,
            &[],
            "version",
            "The version of this contract: the major one in the upper 16 bits, the minor one in \
             the lower. Another major version or a higher minor one is refused.",
        ),
        optional(
            export::CAPS,
            &[],
            "bits",
            "What the plugin reads and promises. Without this export: that it reads the counters.",
        ),
        required(
            export::REGION,
            &["kind", "size"],
            "address",
            "The address of at least `size` octets for this kind of region, a multiple of 8; 0 \
             when there are none. A later call for the same kind ends the earlier region's life.",
        ),
        optional(
            export::INIT,
            &["len"],
            "refusal",
            "`len` octets of JSON are in the config region, 0 when the service has no `config`. 0 \
             takes it. Anything else refuses it, and the reason is a NUL-terminated text in the \
             same region. A plugin without this export takes no `config`.",
        ),
        optional(
            export::SERVERS_CHANGED,
            &["n"],
            "refusal",
            "The server table was written, at the start or because membership or weights changed. \
             Below 0 is a fault.",
        ),
        optional(
            export::STATE_LOAD,
            &["len"],
            "refusal",
            "`len` octets that the predecessor saved are in the state region, and the server table \
             is written. 0 takes them; below 0 they mean nothing to this plugin, which then starts \
             afresh: no fault.",
        ),
        required(
            export::SCHEDULE,
            &["n"],
            "index",
            "One decision: the request is in its region, `n` servers in theirs.",
        ),
        optional(
            export::EVENT,
            &["kind", "index", "argument"],
            "",
            "Something happened to a connection of the server at `index`. Called in the order of \
             events before the next decision, at the latest after a tenth of a second.",
        ),
        optional(
            export::TICK,
            &[],
            "ms",
            "Called once when the plugin got its service, and then after as many milliseconds as \
             it returns, at least 10; 0 for never again. The request region has the time and a \
             random number, and is otherwise 0.",
        ),
        optional(
            export::STATE_SAVE,
            &["capacity"],
            "len",
            "The plugin is about to be replaced. It writes what its successor should know to the \
             state region, at most `capacity` octets, and returns their number; below 0 for \
             nothing. Where it has more to say, it returns how much that is, and is called once more \
             with room for it, 65,536 octets at most. It goes on deciding where its successor fails.",
        ),
    ]
};

/// What a plugin may import besides the functions of WASI that some runtimes insist on.
pub const IMPORTS: [Function; 2] = [
    Function {
        module: import::WVS,
        name: import::LOG,
        parameters: &["level", "text", "len"],
        result: "",
        is_required: false,
        about: "Writes a line of at most 1024 octets of UTF-8 to the director's log. Lines that \
                come too fast are counted and not written.",
    },
    Function {
        module: import::ENV,
        name: import::ABORT,
        parameters: &["message", "file", "line", "column"],
        result: "",
        is_required: false,
        about: "Stops the plugin: a trap. AssemblyScript calls it.",
    },
];

/// Defines a module of numbers with its [`Group`].
macro_rules! constants {
    (
        $(#[doc = $about:literal])*
        pub mod $name:ident: $type:ty {
            $($(#[doc = $doc:literal])* $constant:ident = $value:expr;)*
        }
    ) => {
        $(#[doc = $about])*
        pub mod $name {
            $($(#[doc = $doc])* pub const $constant: $type = $value;)*

            /// The numbers' description.
            pub const DESCRIPTION: $crate::description::Group = $crate::description::Group {
                name: stringify!($name),
                about: concat!($($about),*),
                constants: &[$($crate::description::Constant {
                    name: stringify!($constant),
                    value: $constant as i64,
                    about: concat!($($doc),*),
                },)*],
            };
        }
    };
}

pub(crate) use constants;
