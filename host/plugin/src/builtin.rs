//! The schedulers that come with the director, as the modules that the build made of `plugins/`.

macro_rules! built_ins {
    ($($name:literal),*) => {
        /// The names that [`find`] knows, as in ipvsadm where it has them, sorted.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The module of a built-in scheduler, `None` for a name that is none.
        #[must_use]
        pub fn find(name: &str) -> Option<&'static [u8]> {
            match name {
                $($name => Some(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm"))),)*
                _ => None,
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/built_ins.rs"));
