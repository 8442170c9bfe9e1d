-- Makes jobs ready or scheduled. A job that is known stays as it is, but is made sure to be in the
-- indexes its state belongs to: any of them may have been lost.
-- ARGV     lease in µs, then per job: id, arguments, group ('' for none), max attempts, delay in µs, trace
-- Returns  {queued, known}

local queued, known = 0, 0
local lease = tonumber(ARGV[1])

local function create(id, args, group, max, due, trace, state)
  local job = job_key(id)
  redis.call('HSET', job, 'args', args, 'group', group, 'tries', 0, 'max', max, 'crashes', 0,
    'born', num(now), 'state', state, 'owner', '')
  if trace ~= '' then redis.call('HSET', job, 'trace', trace) end
  redis.call('SADD', key('ids'), id)
end

-- The running handler may have read stale data: run the job once more when it is done.
local function run_again(id, args, due)
  local job = job_key(id)
  local again = tonumber(redis.call('HGET', job, 'again'))
  if not again or due < again then redis.call('HSET', job, 'again', num(due)) end
  redis.call('HSET', job, 'args', args)
end

for i = 2, #ARGV, 6 do
  local id, args, group, max, trace = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 5]
  local due = now + tonumber(ARGV[i + 4])
  local job = job_key(id)
  local h = redis.call('HMGET', job, 'state', 'group', 'due', 'began')
  local state = h[1]
  if not state and redis.call('ZSCORE', key('lease'), lease_of(id, group)) then
    -- The hash was lost under a worker that runs the job. With its next renewal it owns this one.
    create(id, args, group, max, due, trace, 'running')
    redis.call('HSET', job, 'began', num(now))
    run_again(id, args, due)
    known = known + 1
  elseif not state or state == 'done' or state == 'dead' then
    if state then
      redis.call('ZREM', key(state), id)
      redis.call('DEL', job)
    end
    create(id, args, group, max, due, trace, 'ready')
    if due > now then schedule(id, due) else into_lane(id, group, next_order()) end
    queued = queued + 1
  else
    known = known + 1
    redis.call('SADD', key('ids'), id)
    if state == 'ready' then
      restore_ready(id, h[2])
      rejoin(h[2])
    elseif state == 'scheduled' then
      if due < tonumber(h[3]) then
        redis.call('ZREM', key('scheduled'), id)
        ready_or_scheduled(id, h[2], due)
      else
        restore_scheduled(id, tonumber(h[3]))
      end
    else
      restore_running(id, h[2], h[4] or num(now), lease)
      run_again(id, args, due)
    end
  end
end
finish()
return {queued, known}
