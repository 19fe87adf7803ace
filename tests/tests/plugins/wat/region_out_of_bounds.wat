;; The request would end 8 octets beyond the memory.
(module
  (memory (export "memory") 2)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.sub (i32.const 131080) (local.get $size)))
  (func (export "wvs_schedule") (param $n i32) (result i32) (i32.const 0)))
