;; Takes its first table of servers and no other.
;; Gives up on clients with port 666, takes the last server otherwise.
(module
  (memory (export "memory") 2)
  (global $tables (mut i32) (i32.const 0))
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (i32.const 4096) (i32.add (i32.const 1) (local.get $kind))))
  (func (export "wvs_servers_changed") (param $n i32) (result i32)
    (global.set $tables (i32.add (global.get $tables) (i32.const 1)))
    (i32.sub (i32.const 1) (global.get $tables)))
  (func (export "wvs_schedule") (param $n i32) (result i32)
    (if (i32.eq (i32.load16_u (i32.const 8200)) (i32.const 666))
      (then
        (unreachable)))
    (i32.sub (local.get $n) (i32.const 1))))
