-- Ends claims: each job that is still owned by the token goes where its verdict says.
-- ARGV     done jobs to keep, dead jobs to keep, then per job: id, token, verdict, error, delay in µs
--          verdict: done | failed (counts) | later (does not) | dead | released
-- Returns  ids whose token does not own them: nothing was changed for those

local stale, leases = {}, {}
local done, failed = 0, 0
local keep_done = tonumber(ARGV[1])

local function wait(id, group, again, delay)
  local due = now + delay
  if again then
    due = math.min(due, again)
    redis.call('HDEL', job_key(id), 'again')
  end
  ready_or_scheduled(id, group, due)
end

local gone = {}
local function finish_job(id, group, again)
  done = done + 1
  if again then
    start_over(id, group, again)
  elseif keep_done == 0 then
    redis.call('DEL', job_key(id))
    gone[#gone + 1] = id
  else
    redis.call('HSET', job_key(id), 'state', 'done', 'owner', '', 'ended', num(now))
    redis.call('ZADD', key('done'), num(now), id)
  end
end

local function fail_job(id, group, again, tries, max, reason, delay)
  failed = failed + 1
  redis.call('HSET', job_key(id), 'tries', tries, 'error', reason)
  if delay and tries < max then
    wait(id, group, again, delay)
  elseif again then
    start_over(id, group, again)
  else
    die(id, reason)
  end
end

for i = 3, #ARGV, 5 do
  local id, verdict, reason, delay = ARGV[i], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  local job = job_key(id)
  local h = redis.call('HMGET', job, 'owner', 'group', 'tries', 'max', 'again')
  if h[1] ~= ARGV[i + 1] then
    stale[#stale + 1] = id
  else
    local group, tries, again = h[2], tonumber(h[3]), tonumber(h[5])
    leases[#leases + 1] = id
    if verdict == 'done' then
      finish_job(id, group, again)
    elseif verdict == 'failed' then
      fail_job(id, group, again, tries + 1, tonumber(h[4]), reason, delay)
    elseif verdict == 'dead' then
      fail_job(id, group, again, tries + 1, 0, reason, nil)
    elseif verdict == 'later' then
      redis.call('HSET', job, 'error', reason)
      wait(id, group, again, delay)
    else
      redis.call('HDEL', job, 'again', 'began')
      make_ready_first(id, group)
    end
    free_slot(group)
  end
end

if #leases > 0 then redis.call('ZREM', key('lease'), unpack(leases)) end
if #gone > 0 then redis.call('HDEL', key('args'), unpack(gone)) end
count('done', 'd', done)
count('failed', 'f', failed)
trim('done', keep_done)
trim('dead', tonumber(ARGV[2]))
finish()
return stale
