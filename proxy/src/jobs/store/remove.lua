-- Removes a record. That it was removed is kept for as long as a gateway may be away before it reads everything again.
--
-- KEYS: records (hash), revisions (hash), changes (sorted set), count of changes, keys (hash), removed (sorted set: id by time).
-- ARGV: id, its idempotency key or nothing, the time in milliseconds, the time before which removals are forgotten.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
if ARGV[2] ~= '' and redis.call('HGET', KEYS[5], ARGV[2]) == ARGV[1] then
  redis.call('HDEL', KEYS[5], ARGV[2])
end
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), ARGV[1])
redis.call('ZADD', KEYS[6], ARGV[3], ARGV[1])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', '(' .. ARGV[4], 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[6], id)
end
return 0
