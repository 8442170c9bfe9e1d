-- Makes jobs ready or scheduled, unless they are known.
-- ARGV     per job: id, arguments, group ('' for none), max attempts, delay in µs, trace
-- Returns  {queued, known}

local queued, known = 0, 0
for i = 1, #ARGV, 6 do
  local id, args, group = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local due = now + tonumber(ARGV[i + 4])
  local job = job_key(id)
  local state = redis.call('HGET', job, 'state')
  if not state or state == 'done' or state == 'dead' then
    if state then
      redis.call('ZREM', key(state), id)
      redis.call('DEL', job)
    end
    redis.call('HSET', key('args'), id, args)
    if due > now then
      redis.call('HSET', job, 'group', group, 'tries', 0, 'max', ARGV[i + 3], 'crashes', 0, 'born', num(now))
      schedule(id, due)
    else
      redis.call('HSET', job, 'group', group, 'tries', 0, 'max', ARGV[i + 3], 'crashes', 0, 'born', num(now),
        'state', 'ready')
      into_lane(id, group, next_order())
    end
    if ARGV[i + 5] ~= '' then redis.call('HSET', job, 'trace', ARGV[i + 5]) end
    queued = queued + 1
  else
    known = known + 1
    if state == 'scheduled' then
      local h = redis.call('HMGET', job, 'due', 'group')
      if due < tonumber(h[1]) then
        redis.call('ZREM', key('scheduled'), id)
        ready_or_scheduled(id, h[2], due)
      end
    elseif state == 'running' then
      -- What the running handler has read may be stale by now: run once more when it is done.
      local again = tonumber(redis.call('HGET', job, 'again'))
      if not again or due < again then redis.call('HSET', job, 'again', num(due)) end
      redis.call('HSET', key('args'), id, args)
    end
  end
end
finish()
return {queued, known}
