-- Pauses or resumes the start of jobs. Running jobs are not affected.
-- ARGV     1 to pause, 0 to resume

if ARGV[1] == '1' then
  redis.call('HSET', key('meta'), 'paused', 1)
else
  redis.call('HDEL', key('meta'), 'paused')
  woke = true
end
finish()
return 1
