;; Refuses any configuration, with a reason that tries to colour the terminal.
(module
  (memory (export "memory") 2)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (i32.const 4096) (i32.add (i32.const 1) (local.get $kind))))
  (func (export "wvs_init") (param $len i32) (result i32)
    (if (i32.eqz (local.get $len)) (then (return (i32.const 0))))
    (memory.copy (i32.const 4096) (i32.const 64) (i32.const 31))
    (i32.const -1))
  (data (i32.const 64) "half_life: \1b[31mnot a duration\00")
  (func (export "wvs_schedule") (param $n i32) (result i32) (i32.const 0)))
