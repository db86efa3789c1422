-- Keeps a record, unless another gateway changed it since it was read.
--
-- KEYS: records (hash), revisions (hash), changes (sorted set), count of changes, keys (hash: idempotency key to id).
-- ARGV: id, the revision that was read or 0 for a new record, the record, its idempotency key or nothing.
-- Returns `written`; `changed` and the record that is there, if one is; or `earlier` and the record made with the same key.
if (redis.call('HGET', KEYS[2], ARGV[1]) or '0') ~= ARGV[2] then
  return {'changed', redis.call('HGET', KEYS[1], ARGV[1])}
end
if ARGV[2] == '0' and ARGV[4] ~= '' then
  local id = redis.call('HGET', KEYS[5], ARGV[4])
  local earlier = id and redis.call('HGET', KEYS[1], id)
  if earlier then
    return {'earlier', earlier}
  end
  redis.call('HSET', KEYS[5], ARGV[4], ARGV[1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), ARGV[1])
return {'written', false}
