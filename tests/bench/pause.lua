-- wrk: each client rests between two requests, so many milliseconds as the first argument says.
local pause

function init(args)
    pause = tonumber(args[1])
end

function delay()
    return pause
end
