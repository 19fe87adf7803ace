//! The WebAssembly engine as plugins need it: bounded, and the same results on every machine.

use wasmtime::{Config, Engine, OperatorCost};

use crate::error::HostError;
use crate::limits::STACK;

/// An engine for plugins.
pub(crate) fn new_engine() -> Result<Engine, HostError> {
    let mut config = Config::new();
    config.consume_fuel(true).operator_cost(operator_cost()).max_wasm_stack(STACK);
    // The contract's one memory of 32 bits, and nothing whose result depends on the machine.
    config.wasm_memory64(false).wasm_multi_memory(false);
    config.wasm_relaxed_simd(false).cranelift_nan_canonicalization(true);
    // The address space reserved for a memory covers all that 32 bits can address, so it never
    // moves and its accesses need no checks.
    config.memory_may_move(false);
    // Functions in tables are made when an instance is, not at the first call, where a request waits.
    config.table_lazy_init(false);
    // For tools that read backtraces; a plugin's trap is reported without one.
    config.generate_address_map(false);
    Engine::new(&config).map_err(|error| HostError::Engine(format!("{error:#}")))
}

/// Fuel by instruction, so that the default of a decision stays within milliseconds whatever a
/// plugin does with it. Copies and fills pay for each octet besides.
fn operator_cost() -> OperatorCost {
    /// Entering and leaving the host, about 100 simple instructions.
    const HOST_CALL: u8 = 128;
    /// The system's call to map memory comes on top.
    const GROWTH: u8 = u8::MAX;
    /// The processor takes 10 to 40 cycles, one after the other.
    const DIVISION: u8 = 16;

    let mut cost = OperatorCost::new();
    for call in [
        &mut cost.MemoryCopy,
        &mut cost.MemoryFill,
        &mut cost.MemoryInit,
        &mut cost.DataDrop,
        &mut cost.TableCopy,
        &mut cost.TableFill,
        &mut cost.TableInit,
        &mut cost.ElemDrop,
        &mut cost.RefFunc,
    ] {
        *call = HOST_CALL;
    }
    for division in [
        &mut cost.I32DivS,
        &mut cost.I32DivU,
        &mut cost.I32RemS,
        &mut cost.I32RemU,
        &mut cost.I64DivS,
        &mut cost.I64DivU,
        &mut cost.I64RemS,
        &mut cost.I64RemU,
        &mut cost.F32Div,
        &mut cost.F64Div,
        &mut cost.F32x4Div,
        &mut cost.F64x2Div,
        &mut cost.F32Sqrt,
        &mut cost.F64Sqrt,
        &mut cost.F32x4Sqrt,
        &mut cost.F64x2Sqrt,
    ] {
        *division = DIVISION;
    }
    cost.MemoryGrow = GROWTH;
    cost.TableGrow = GROWTH;
    cost.variable.memory_grow_per_page = GROWTH;
    cost
}
