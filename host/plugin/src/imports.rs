//! What a plugin may import, and need not: a line for the log, and what runtimes of some languages
//! insist on.
//!
//! Nothing here tells a plugin anything that is not in its requests already: the clock is the
//! request's, randomness begins with the same seed in every instance, arguments and environment
//! are empty. So a plugin with imports replays as exactly as one without.

use wasmtime::{Caller, Engine, ExternType, FuncType, ImportType, Linker, Trap, Val};
use wvs_abi::import::{ABORT, ENV, LOG, WASI, WVS};

use crate::error::LoadError;
use crate::guest::Guest;
use crate::signature::{describe, kind};

/// Fuel of entering the director and coming back, about 100 simple instructions.
const CALL_FUEL: u64 = 128;

/// Characters of a text that AssemblyScript hands to `abort`.
const ABORT_CHARACTERS_MAX: usize = 128;

/// Parts of one write to a file descriptor.
const PARTS_MAX: u32 = 64;

/// The errors of WASI preview 1 that occur here.
mod errno {
    pub(super) const SUCCESS: i32 = 0;
    pub(super) const BADF: i32 = 8;
    pub(super) const FAULT: i32 = 21;
    pub(super) const INVAL: i32 = 28;
    pub(super) const NOSYS: i32 = 52;
}

/// A function that is there and does something.
struct Offered {
    module: &'static str,
    name: &'static str,
    /// As [`describe`] writes it.
    signature: &'static str,
}

const OFFERED: [Offered; 12] = {
    const fn wasi(name: &'static str, signature: &'static str) -> Offered {
        Offered { module: WASI, name, signature }
    }
    [
        Offered { module: WVS, name: LOG, signature: "a function (i32, i32, i32) -> ()" },
        Offered { module: ENV, name: ABORT, signature: "a function (i32, i32, i32, i32) -> ()" },
        wasi("args_get", "a function (i32, i32) -> (i32)"),
        wasi("args_sizes_get", "a function (i32, i32) -> (i32)"),
        wasi("clock_res_get", "a function (i32, i32) -> (i32)"),
        wasi("clock_time_get", "a function (i32, i64, i32) -> (i32)"),
        wasi("environ_get", "a function (i32, i32) -> (i32)"),
        wasi("environ_sizes_get", "a function (i32, i32) -> (i32)"),
        wasi("fd_write", "a function (i32, i32, i32, i32) -> (i32)"),
        wasi("proc_exit", "a function (i32) -> ()"),
        wasi("random_get", "a function (i32, i32) -> (i32)"),
        wasi("sched_yield", "a function () -> (i32)"),
    ]
};

/// The rest of WASI preview 1: there, so that a runtime that could call them loads, but all they say
/// is that they do nothing.
const STUBS: [&str; 35] = [
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// Why a plugin stopped that asked to be stopped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Abort(pub(crate) String);

/// What is offered, for people.
pub(crate) fn list() -> String {
    format!("{WVS}.{LOG}, {ENV}.{ABORT} and WASI preview 1 ({WASI}) with an empty world")
}

/// Whether a module may import a function of this name.
pub(crate) fn is_offered(module: &str, name: &str) -> bool {
    find(module, name).is_some() || is_stub(module, name)
}

fn find(module: &str, name: &str) -> Option<&'static Offered> {
    OFFERED.iter().find(|offered| offered.module == module && offered.name == name)
}

fn is_stub(module: &str, name: &str) -> bool {
    module == WASI && STUBS.contains(&name)
}

/// Everything that `module` imports and may.
pub(crate) fn link(engine: &Engine, module: &wasmtime::Module) -> Result<Linker<Guest>, LoadError> {
    let mut linker = Linker::new(engine);
    // A module may import one function twice.
    linker.allow_shadowing(true);
    define(&mut linker).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    for import in module.imports() {
        let found = match import.ty() {
            ExternType::Func(function) => function,
            other => return Err(wrong(&import, "a function", kind(&other).to_owned())),
        };
        match find(import.module(), import.name()) {
            Some(offered) if describe(&found) == offered.signature => {}
            Some(offered) => return Err(wrong(&import, offered.signature, describe(&found))),
            None => stub(&mut linker, &import, found)?,
        }
    }
    Ok(linker)
}

fn wrong(import: &ImportType<'_>, expected: &'static str, found: String) -> LoadError {
    let (module, name) = (import.module().to_owned(), import.name().to_owned());
    LoadError::WrongImport { module, name, expected, found }
}

/// A function that is there only to say that it does nothing, whatever its parameters.
fn stub(
    linker: &mut Linker<Guest>,
    import: &ImportType<'_>,
    function: FuncType,
) -> Result<(), LoadError> {
    if !(function.results().len() == 1 && function.results().all(|result| result.is_i32())) {
        return Err(wrong(import, "a function that returns one i32", describe(&function)));
    }
    let says_no = |mut caller: Caller<'_, Guest>, _: &[Val], results: &mut [Val]| {
        charge(&mut caller, 0)?;
        results.fill(Val::I32(errno::NOSYS));
        Ok(())
    };
    linker
        .func_new(import.module(), import.name(), function, says_no)
        .map(|_| ())
        .map_err(|error| LoadError::Compile(format!("{error:#}")))
}

fn define(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(WVS, LOG, log)?;
    linker.func_wrap(ENV, ABORT, abort)?;
    let nothing = |mut caller: Caller<'_, Guest>, _: u32, _: u32| {
        charge(&mut caller, 0)?;
        Ok(errno::SUCCESS)
    };
    linker.func_wrap(WASI, "args_get", nothing)?;
    linker.func_wrap(WASI, "environ_get", nothing)?;
    let none = |mut caller: Caller<'_, Guest>, count: u32, size: u32| {
        charge(&mut caller, 0)?;
        Ok(write_all(&mut caller, &[(count, &[0; 4]), (size, &[0; 4])]))
    };
    linker.func_wrap(WASI, "args_sizes_get", none)?;
    linker.func_wrap(WASI, "environ_sizes_get", none)?;
    linker.func_wrap(WASI, "clock_res_get", |mut caller: Caller<'_, Guest>, _: u32, at: u32| {
        charge(&mut caller, 0)?;
        Ok(write_all(&mut caller, &[(at, &1_000_000_u64.to_le_bytes())]))
    })?;
    linker.func_wrap(
        WASI,
        "clock_time_get",
        |mut caller: Caller<'_, Guest>, _: u32, _: u64, at: u32| {
            charge(&mut caller, 0)?;
            // Never 0: the runtime of Go takes that for a broken clock and stops.
            let nanos = caller.data().now_ms.max(1).saturating_mul(1_000_000);
            Ok(write_all(&mut caller, &[(at, &nanos.to_le_bytes())]))
        },
    )?;
    linker.func_wrap(WASI, "random_get", random_get)?;
    linker.func_wrap(WASI, "fd_write", fd_write)?;
    linker.func_wrap(WASI, "sched_yield", |mut caller: Caller<'_, Guest>| {
        charge(&mut caller, 0)?;
        Ok(errno::SUCCESS)
    })?;
    linker.func_wrap(WASI, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(Abort(format!("the plugin ended itself with code {code}")).into())
    })?;
    Ok(())
}

/// Takes the fuel of one call that touches so many octets.
fn charge(caller: &mut Caller<'_, Guest>, octets: u32) -> wasmtime::Result<()> {
    let left = caller.get_fuel()?.checked_sub(CALL_FUEL + u64::from(octets));
    caller.set_fuel(left.unwrap_or(0))?;
    if left.is_some() { Ok(()) } else { Err(Trap::OutOfFuel.into()) }
}

fn log(mut caller: Caller<'_, Guest>, level: u32, at: u32, len: u32) -> wasmtime::Result<()> {
    charge(&mut caller, len.min(wvs_abi::LOG_OCTETS_MAX))?;
    let (memory, guest) = memory(&mut caller).ok_or(Trap::MemoryOutOfBounds)?;
    let text = slice(memory, at, len).ok_or(Trap::MemoryOutOfBounds)?;
    guest.log(level, text);
    Ok(())
}

fn abort(
    mut caller: Caller<'_, Guest>,
    message: u32,
    file: u32,
    line: u32,
    column: u32,
) -> wasmtime::Result<()> {
    let (memory, _) = memory(&mut caller).ok_or(Trap::MemoryOutOfBounds)?;
    let message = text_of_assembly_script(memory, message);
    let file = text_of_assembly_script(memory, file);
    Err(Abort(format!("the plugin aborted: {message} ({file}:{line}:{column})")).into())
}

fn random_get(mut caller: Caller<'_, Guest>, at: u32, len: u32) -> wasmtime::Result<i32> {
    charge(&mut caller, len)?;
    let Some((memory, guest)) = memory(&mut caller) else { return Ok(errno::FAULT) };
    let Some(octets) = slice_mut(memory, at, len) else { return Ok(errno::FAULT) };
    for chunk in octets.chunks_mut(8) {
        chunk.copy_from_slice(&guest.random.next().to_le_bytes()[..chunk.len()]);
    }
    Ok(errno::SUCCESS)
}

/// Standard output and error are the log.
fn fd_write(
    mut caller: Caller<'_, Guest>,
    fd: u32,
    parts: u32,
    n: u32,
    written_at: u32,
) -> wasmtime::Result<i32> {
    use wvs_abi::log_level::{INFO, WARN};

    charge(&mut caller, 0)?;
    let level = match fd {
        1 => INFO,
        2 => WARN,
        _ => return Ok(errno::BADF),
    };
    if n > PARTS_MAX {
        return Ok(errno::INVAL);
    }
    let mut written = 0_u32;
    for part in 0..n {
        let Some((memory, _)) = memory(&mut caller) else { return Ok(errno::FAULT) };
        let at = parts.saturating_add(part.saturating_mul(8));
        let Some(&[a, b, c, d, e, f, g, h]) = slice(memory, at, 8) else { return Ok(errno::FAULT) };
        let (at, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        charge(&mut caller, len.min(wvs_abi::LOG_OCTETS_MAX))?;
        let Some((memory, guest)) = self::memory(&mut caller) else { return Ok(errno::FAULT) };
        let Some(text) = slice(memory, at, len) else { return Ok(errno::FAULT) };
        guest.log(level, text);
        written = written.saturating_add(len);
    }
    Ok(write_all(&mut caller, &[(written_at, &written.to_le_bytes())]))
}

/// The plugin's memory, beside what the director knows of it.
fn memory<'a>(caller: &'a mut Caller<'_, Guest>) -> Option<(&'a mut [u8], &'a mut Guest)> {
    let memory = caller.get_export(wvs_abi::export::MEMORY)?.into_memory()?;
    Some(memory.data_and_store_mut(caller))
}

fn slice(memory: &[u8], at: u32, len: u32) -> Option<&[u8]> {
    memory.get(at as usize..)?.get(..len as usize)
}

fn slice_mut(memory: &mut [u8], at: u32, len: u32) -> Option<&mut [u8]> {
    memory.get_mut(at as usize..)?.get_mut(..len as usize)
}

/// Writes each to its address; the error when one is out of bounds.
fn write_all(caller: &mut Caller<'_, Guest>, values: &[(u32, &[u8])]) -> i32 {
    let Some((memory, _)) = memory(caller) else { return errno::FAULT };
    for (at, octets) in values {
        let place = memory.get_mut(*at as usize..).and_then(|rest| rest.get_mut(..octets.len()));
        let Some(place) = place else { return errno::FAULT };
        place.copy_from_slice(octets);
    }
    errno::SUCCESS
}

/// A text as AssemblyScript keeps it: UTF-16, its octets counted in front of it.
fn text_of_assembly_script(memory: &[u8], at: u32) -> String {
    let text = || {
        let length = slice(memory, at.checked_sub(4)?, 4)?.first_chunk()?;
        let octets = slice(memory, at, u32::from_le_bytes(*length))?;
        let (units, _) = octets.as_chunks::<2>();
        let units = units.iter().take(ABORT_CHARACTERS_MAX).map(|unit| u16::from_le_bytes(*unit));
        Some(char::decode_utf16(units).map(|char| char.unwrap_or('\u{fffd}')).collect())
    };
    text().unwrap_or_else(|| "?".to_owned())
}
